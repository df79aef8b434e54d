// The editor of rules: checks while you type, adds a rule of each kind, shows real lists before and after.
"use strict";
const form = document.querySelector("#draft");
const text = document.querySelector("#document");
const told = document.querySelector("#faults");
const shown = document.querySelector("#preview");
const PAUSE_MS = 400;
const KINDS = {
  pin: { items: ["SKU"], slots: [0] },
  boost: { where: { brand: ["Brand"] }, factor: 1.5 },
  block: { where: { category: "Category" } },
  floor: { stock: 3 },
  at_most: { per: "brand", slots: 3 },
  only: { where: { category: "Category" } },
};

async function post(address) {
  const body = new URLSearchParams(new FormData(form));
  const answer = await fetch(address, { method: "POST", body, headers: { accept: "application/json, text/html" } });
  if (!answer.ok && answer.status !== 409) throw new Error(`${answer.status}: sign in again`);
  return answer;
}

function say(kind, line) {
  const note = document.createElement("p");
  note.className = `note ${kind}`;
  note.textContent = line;
  told.append(note);
}

let turn = 0;
async function check() {
  const mine = ++turn;
  try {
    const found = await (await post("/rules/check")).json();
    if (mine !== turn) return;
    told.replaceChildren();
    for (const fault of found.faults) say(fault.refused ? "bad" : "warn", fault.line);
    const refused = found.faults.some((fault) => fault.refused);
    if (!refused && found.rules !== null) say("good", `${found.rules} ${found.rules === 1 ? "rule" : "rules"}, nothing refused`);
    text.setAttribute("aria-invalid", String(refused));
  } catch (error) {
    if (mine === turn) { told.replaceChildren(); say("bad", String(error.message)); }
  }
}

let waiting;
text.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(check, PAUSE_MS);
});

document.querySelector("#show").addEventListener("click", async () => {
  shown.textContent = "…";
  try {
    const page = new DOMParser().parseFromString(await (await post("/rules/preview")).text(), "text/html");
    shown.replaceChildren(...page.body.childNodes);
    shown.scrollIntoView({ block: "nearest", behavior: "smooth" });
  } catch (error) {
    shown.textContent = String(error.message);
  }
});

document.querySelector("#add").addEventListener("click", (event) => {
  const action = event.target.dataset.action;
  if (!action) return;
  let rules;
  try {
    rules = JSON.parse(text.value);
  } catch {
    return check();
  }
  if (!Array.isArray(rules?.rules)) return check();
  const ids = new Set(rules.rules.map((rule) => rule?.id));
  let at = 1;
  while (ids.has(`${action}-${at}`)) at += 1;
  rules.rules.push({ id: `${action}-${at}`, why: "", when: { surface: ["homepage_hero"] }, do: { [action]: KINDS[action] } });
  text.value = JSON.stringify(rules, null, 2);
  text.scrollTop = text.scrollHeight;
  check();
});
check();
