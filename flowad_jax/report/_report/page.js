"use strict";
(() => {
  const form = document.getElementById("filters");
  const list = document.getElementById("entries");
  const entries = [...list.children];

  function update() {
    const { kind, outcome, order } = Object.fromEntries(new FormData(form));
    let shown = 0;
    for (const entry of entries) {
      const matches =
        (!kind || entry.dataset.kind === kind) && (!outcome || entry.dataset.outcome === outcome);
      entry.hidden = !matches;
      shown += matches;
    }
    list.replaceChildren(...(order === "lowest" ? [...entries].reverse() : entries));
    document.getElementById("shown").value = `${shown} shown`;
    document.getElementById("none").hidden = shown > 0;
  }

  form.hidden = false;
  form.addEventListener("input", update);
  for (const link of document.querySelectorAll("a[data-kind]")) {
    link.addEventListener("click", () => {
      form.elements.kind.value = link.dataset.kind;
      update();
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  update();

  // Paper cannot be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
  });
})();
