// The page at /: what /docs.json says, as forms. Answers are shown as text and never as markup.
(async () => {
  const place = document.getElementById("routes");
  const template = document.getElementById("route").content;
  const spread = (value) => JSON.stringify(value, null, 2);

  function address(path, parameters) {
    const query = parameters.filter((one) => one.example !== undefined)
      .map((one) => `${one.name}=${encodeURIComponent(one.example)}`).join("&");
    return query ? `${path}?${query}` : path;
  }

  function show(path, method, told) {
    const copy = template.cloneNode(true);
    const find = (name) => copy.querySelector("." + name);
    const [answer, status, body] = ["answer", "status", "body"].map(find);
    const field = find("address");
    find("method").textContent = method.toUpperCase();
    find("path").textContent = path;
    find("what").textContent = told.summary;
    field.value = address(path, told.parameters || []);
    const content = told.requestBody && told.requestBody.content["application/json"];
    if (content) body.value = spread(content.examples.one.value);
    else find("content").remove();
    find("schema").textContent = spread(content ? content.schema : told.parameters || told.responses);
    copy.querySelector("form").addEventListener("submit", async (submitted) => {
      submitted.preventDefault();
      const began = performance.now();
      answer.hidden = false;
      try {
        const found = await fetch(field.value, { method: method.toUpperCase(), ...(content ? { body: body.value } : {}) });
        const text = await found.text();
        status.textContent = `${found.status} in ${(performance.now() - began).toFixed(1)} ms`;
        try {
          answer.textContent = spread(JSON.parse(text));
        } catch {
          answer.textContent = text;
        }
      } catch (error) {
        status.textContent = "";
        answer.textContent = String(error);
      }
    });
    return copy;
  }

  const { paths } = await (await fetch("/docs.json")).json();
  place.replaceChildren(...Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, told]) => show(path, method, told))));
  place.querySelector("details").open = true;
})();
