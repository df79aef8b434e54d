// What this shop adds to endcap.js: it tells which product is looked at, and says why a shelf is as it is.
(async () => {
  if (!window.endcap) return; // the service does not answer: the page is whole as it came
  const WHY = {
    covisit: "often looked at together", ease: "often looked at together", als: "liked by shoppers like you", tower: "like what you looked at",
    popular: "popular now", fresh: "new in the shop", shown: "shown to you before", reorder: "bought before", tail: "rarely seen", next: "often looked at next",
    attractive: "many who see it want it", together: "bought together", carted: "bought after a look at this", links: "goes with it",
    coviews: "often looked at together", content: "much like it", bestsellers: "popular now", pin: "the shop's choice",
  };
  const { product, title, price } = document.body.dataset;
  const session = endcap.session();
  const held = sessionStorage.shop ? JSON.parse(sessionStorage.shop) : {};
  const memory = held.session === session ? held : { session, looked: [], shelves: {} };
  const keep = () => { sessionStorage.shop = JSON.stringify(memory); };

  function explain({ target: rail, detail: list }) {
    const before = memory.shelves[list.surface];
    const now = list.items.map((item) => item.item_id);
    const added = before ? now.filter((item) => !before.includes(item)).length : 0;
    rail.querySelectorAll(".card").forEach((card, at) => {
      card.querySelector(".reason").textContent = WHY[list.items[at].source] || "chosen for you";
      card.classList.toggle("fresh", Boolean(before) && !before.includes(now[at]));
    });
    const last = memory.looked.at(-1);
    const caption = document.querySelector(`.why[data-of="${list.surface}"]`);
    if (list.served_from !== "live") caption.textContent = "What everybody looks at most.";
    else if (!last) caption.textContent = "Nothing is known of this visit yet: look at a product, and come back.";
    else if (added) caption.textContent = `${added} of ${now.length} are new, because you looked at “${last}”.`;
    else caption.textContent = `Because you looked at “${last}”.`;
    memory.shelves[list.surface] = now;
    keep();
  }
  document.addEventListener("endcap", explain);

  if (product) {
    await endcap.tell({ type: "product_viewed", item_id: product, ...(price ? { price: Number(price) } : {}) });
    memory.looked = [...memory.looked.filter((one) => one !== title), title].slice(-20);
    keep();
    document.getElementById("add").addEventListener("submit", () =>
      endcap.event({ type: "add_to_cart", item_id: product, quantity: 1, ...(price ? { price: Number(price) } : {}) }));
  }
  const order = document.getElementById("order");
  if (order) order.addEventListener("submit", () => {
    for (const item of JSON.parse(document.querySelector("script[data-cart]").dataset.cart))
      endcap.event({ type: "purchase_completed", item_id: item, quantity: 1 });
  });
  await endcap.rails();
})();
