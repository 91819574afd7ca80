// An image with its verdict and its buttons.

import { picture } from "./api.js";
import { short } from "./charts.js";
import { disagrees, SHAPES } from "./judging.js";

const pictures = new Map(); // addresses of pictures that the page holds

export function newCard(row, say, toggle) {
  const item = document.getElementById("card").content.firstElementChild.cloneNode(true);
  item.dataset.id = row.id;
  item.querySelector(".name").textContent = row.name;
  item.querySelector(".good").onclick = (event) => say(event, row.id, "good");
  item.querySelector(".defect").onclick = (event) => say(event, row.id, "defect");
  item.onclick = () => toggle(row.id);
  const image = item.querySelector("img");
  image.hidden = true;
  image.alt = `Overlay of ${row.name}`;
  return item;
}

async function draw(item, row) {
  const address = row.pictures?.overlay;
  const image = item.querySelector("img");
  if (!address || image.dataset.from === address) return;
  image.dataset.from = address;
  try {
    if (!pictures.has(address)) pictures.set(address, await picture(address));
    image.src = pictures.get(address);
    image.hidden = false;
  } catch {
    image.hidden = true; // it is not kept any more
  }
}

export function fill(item, row, word, { isChosen, takesVerdicts }) {
  const badge = item.querySelector(".badge");
  badge.className = `badge ${word}`;
  badge.textContent = `${SHAPES[word]} ${word}`;
  item.className = `card is-${word}${isChosen ? " chosen" : ""}`;
  const when = new Date(1000 * row.time).toLocaleTimeString();
  const rank = row.p_value === null ? "no p-value" : `p ${short(row.p_value)}`;
  item.querySelector(".figures").textContent = `score ${short(row.score)}, ${rank}, ${when}`;
  const said = { good: "Confirmed: good.", defect: "Confirmed: a defect." }[row.verdict] || "";
  item.querySelector(".said").textContent = said + (disagrees(word, row.verdict) ? " The detector says otherwise." : "");
  for (const verdict of ["good", "defect"]) {
    const button = item.querySelector(`.${verdict}`);
    button.setAttribute("aria-pressed", row.verdict === verdict);
    button.hidden = !takesVerdicts;
  }
  draw(item, row);
}
