// Endcap in a page of the shop. What is served has neither comments nor indentation (assets.py).
//
//   <div data-endcap="homepage_hero" data-limit="6">
//     what the page shows while there is no list, and where there is none
//     <template><a data-href="url"><img data-src="image_path"><b data-text="title"></b></a></template>
//   </div>
//   <script src="https://recommend.shop.example/endcap.js" data-user="U123" defer></script>
//
// endcap.d.ts has the interface. A request that needs a preflight is never made.
(() => {
  const script = document.currentScript;
  const own = script ? script.dataset : {};
  const base = own.base || (script ? new URL(script.src).origin : location.origin);
  const FIELDS = ["title", "price", "brand", "category_path", "image_path", "url"];
  const PATIENCE_MS = Number(own.patience) || 3000, SEEN_SHARE = 0.5, GATHER_MS = 500, MOST = 100;
  const key = own.key ? "key=" + encodeURIComponent(own.key) : "";
  // In the address: a header would need a preflight, and a beacon has none.
  const keyed = (path) => base + path + (key && (path.includes("?") ? "&" : "?") + key);
  const waiting = [];
  let timer = 0;

  // crypto.randomUUID is there in secure contexts alone
  const fresh = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

  function visit() {
    if (own.session) return own.session;
    try {
      return sessionStorage.endcap || (sessionStorage.endcap = fresh());
    } catch {
      return visit.id || (visit.id = fresh());
    }
  }

  // One id, or a JSON list of them: an id may hold spaces and commas.
  const ids = (text) => (!text ? [] : text[0] === "[" ? JSON.parse(text) : [text]);
  const agreed = own.consent === "false" ? { consent: false } : {};
  // That the shopper is who the page says, made by the shop's server.
  const proof = own.proof ? { user_proof: own.proof } : {};
  const who = () => ({ session_id: visit(), ...(own.user ? { user_id: own.user } : {}) });

  // Addresses of the catalogue are data: one that would run as a script is not followed.
  function safe(text) {
    try {
      return ["http:", "https:"].includes(new URL(text, document.baseURI).protocol) ? text : null;
    } catch {
      return null;
    }
  }

  function event(fields) {
    waiting.push({ event_id: fresh(), ts: Date.now() * 1000, ...who(), ...fields, ...agreed });
    if (fields.type !== "impression" || waiting.length >= MOST) flush();
    else timer = timer || setTimeout(flush, GATHER_MS);
  }

  function flush() {
    clearTimeout(timer);
    timer = 0;
    while (waiting.length) {
      const body = JSON.stringify({ sent_at: Date.now() * 1000, events: waiting.splice(0, MOST), ...proof });
      const to = keyed("/v1/events");
      if (!(navigator.sendBeacon && navigator.sendBeacon(to, body)))
        fetch(to, { method: "POST", body, keepalive: true, mode: "no-cors" }).catch(() => {});
    }
  }

  async function ask(path, question) {
    const ended = new AbortController();
    const clock = setTimeout(() => ended.abort(), PATIENCE_MS);
    try {
      const answer = await fetch(keyed(path), {
        method: "POST", body: JSON.stringify(question), signal: ended.signal, credentials: "omit",
      });
      if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
      return await answer.json();
    } finally {
      clearTimeout(clock);
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries)
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        event({ type: "impression", ...entry.target.endcap });
      }
  }, { threshold: SEEN_SHARE });

  function bind(node, item) {
    const { text, currency, alt, href, src } = node.dataset;
    const told = (field) => currency && typeof item[field] === "number"
      ? item[field].toLocaleString(document.documentElement.lang || undefined, { style: "currency", currency })
      : item[field] ?? "";
    if (text) node.textContent = told(text);
    if (alt) node.setAttribute("alt", told(alt));
    for (const [name, field] of [["href", href], ["src", src]])
      if (field && item[field] != null && safe(item[field])) node.setAttribute(name, item[field]);
  }

  function fill(rail, list) {
    const template = rail.querySelector("template");
    if (!template || !list.items.length) return;
    const shelf = document.createDocumentFragment();
    const shown = list.items.map((item) => {
      const copy = template.content.cloneNode(true);
      const node = copy.firstElementChild;
      [node, ...node.querySelectorAll("*")].forEach((one) => bind(one, item));
      node.endcap = { item_id: item.item_id, surface: list.surface, request_id: list.request_id, slot: item.slot };
      node.addEventListener("click", () => event({ type: "click", ...node.endcap }));
      node.addEventListener("auxclick", (click) => click.button === 1 && event({ type: "click", ...node.endcap }));
      shelf.append(copy);
      return node;
    });
    rail.replaceChildren(template, shelf);
    shown.forEach((node) => seen.observe(node));
    rail.dispatchEvent(new CustomEvent("endcap", { bubbles: true, detail: list }));
  }

  async function rails(root = document) {
    const found = [...root.querySelectorAll("[data-endcap]")];
    if (!found.length) return [];
    try {
      const surfaces = found.map(({ dataset: { endcap, items, limit } }) => ({
        surface: endcap, items: ids(items), ...(limit ? { limit: Number(limit) } : {}),
      }));
      const page = { surfaces, ...who(), ...proof, cart: ids(own.cart), fields: FIELDS };
      const lists = (await ask("/v1/page", page)).surfaces;
      lists.forEach((list, at) => fill(found[at], list));
      return lists;
    } catch (error) {
      console.warn("endcap: the page keeps its own content:", error);
      return [];
    }
  }

  // Told and in the features: the lists that are asked for next know of it.
  const tell = (fields) => ask("/v1/events?wait=1", {
    ...proof, sent_at: Date.now() * 1000, events: [{ event_id: fresh(), ts: Date.now() * 1000, ...who(), ...agreed, ...fields }],
  }).catch((error) => console.warn("endcap:", error));

  addEventListener("pagehide", flush);
  document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && flush());
  window.endcap = { event, tell, flush, rails, session: visit };
  if (own.manual === undefined) {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => rails());
    else rails();
  }
})();
