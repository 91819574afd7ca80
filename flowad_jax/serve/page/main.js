// The live page: images, verdicts, the slider and the drift chart of one detector.

import { ask, json, keepToken, Refused, send, sleep } from "./api.js";
import { fill, newCard } from "./cards.js";
import { course, histogram } from "./charts.js";
import { decide, FILTERS, percent } from "./judging.js";

const POLL = 1.5; // seconds
const AT_ONCE = 3; // uploads
const MOST = 200; // images on the page
const find = (id) => document.getElementById(id);
const rows = new Map(); // by number, in order
const cards = new Map();
let detector = null;
let card = {};
let filter = "all";
let chosen = null;
let last = 0;

const base = () => `/v1/detectors/${encodeURIComponent(detector.name)}`;

function banner(text) {
  find("banner").textContent = text;
  find("banner").hidden = !text;
}

// Runs a request; asks for a token where one is needed, says in words what went wrong.
async function tried(work) {
  for (;;) {
    try {
      const found = await work();
      banner("");
      return found;
    } catch (error) {
      if (!(error instanceof Refused)) {
        banner("The service does not answer. The page goes on when it is back.");
        return null;
      }
      if (error.status !== 401) {
        banner(error.message);
        return null;
      }
      const dialog = find("login");
      if (!dialog.open) dialog.showModal();
      await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
      keepToken(find("token").value);
    }
  }
}

async function choose(name) {
  rows.clear();
  cards.clear();
  find("list").replaceChildren();
  chosen = null;
  last = 0;
  const found = await tried(() => json(`/v1/detectors/${encodeURIComponent(name)}`));
  if (!found) return;
  detector = found;
  card = found.card;
  sessionStorage.setItem("flowad-detector", name);
  const rate = card.false_alarm_rate || 0.01;
  find("rate").value = Math.log10(rate);
  showRate(rate);
  await look();
  show();
}

function showRate(rate) {
  find("rate-text").textContent = percent(rate);
  const word = { promise: "A promise", estimate: "An estimate", threshold: "A threshold" }[card.decided_by];
  find("meaning").textContent = card.decided_by ? `${word}: ${card.meaning}.` : "Training held no images out: nothing decides.";
}

let waiting = 0;
async function slide() {
  const rate = Math.min(0.5, 10 ** Number(find("rate").value));
  find("rate-text").textContent = percent(rate);
  const turn = ++waiting;
  await sleep(0.06); // only the last of many moves is asked for
  if (turn !== waiting) return;
  const found = await tried(() => json(`${base()}/decisions?false_alarm_rate=${rate}`));
  if (!found || turn !== waiting) return;
  card = found;
  showRate(rate);
  show();
}

// Fetches what is new, also from watched folders and other pages.
async function look() {
  const found = await tried(() => json(`${base()}/history?after=${last}&limit=${MOST}`));
  if (!found) return;
  for (const row of found.rows) take(row);
  const drift = await tried(() => json(`${base()}/drift`));
  if (drift) showDrift(drift);
  if (found.rows.length) show();
}

function take(row) {
  const known = rows.get(row.id);
  rows.set(row.id, { ...known, ...row, pictures: { ...known?.pictures, ...row.pictures } });
  last = Math.max(last, row.id);
  while (rows.size > MOST) {
    const oldest = Math.min(...rows.keys());
    rows.delete(oldest);
    cards.get(oldest)?.remove();
    cards.delete(oldest);
  }
}

function make(row) {
  const item = cards.get(row.id) || newCard(row, say, (id) => select(id === chosen ? null : id));
  cards.set(row.id, item);
  return item;
}

function show() {
  const list = find("list");
  const shown = [];
  for (const id of [...rows.keys()].sort((one, other) => other - one)) {
    const row = rows.get(id);
    const word = decide(card, row);
    const item = make(row);
    fill(item, row, word, { isChosen: id === chosen, takesVerdicts: detector.feedback });
    if (FILTERS[filter](word, row.verdict)) shown.push(item);
  }
  list.replaceChildren(...shown);
  find("count").textContent = `${shown.length} of ${rows.size} images`;
  for (const button of document.querySelectorAll("[data-filter]")) button.setAttribute("aria-pressed", button.dataset.filter === filter);
  const newest = rows.get(last);
  histogram(find("histogram"), detector.normal.flat(), card.image ?? NaN, newest ? newest.score : NaN);
}

function showDrift(drift) {
  const word = find("drift-word");
  word.className = `badge ${drift.alarm ? "anomalous" : "normal"}`;
  word.textContent = drift.alarm ? "▲ alarm" : drift.reason ? "◆ not watched" : "● none";
  const share = percent(drift.alpha);
  find("drift-text").textContent = drift.alarm
    ? `At image ${drift.alarm.number}${drift.alarm.name ? ` (${drift.alarm.name})` : ""}: images are no longer like the good ones at calibration. Find out what changed, then calibrate again.`
    : drift.reason || `No alarm in ${drift.images} images. The probability of ever raising a false one is at most ${share}.`;
  course(find("drift"), drift.points.map((point) => point.value), { log: true, limit: drift.limit });
  for (const name of ["low_share", "brightness", "sharpness"]) course(find(name), drift.points.map((point) => point[name]), { labels: true });
}

async function say(event, id, verdict) {
  event?.stopPropagation();
  const row = await tried(() => send(`${base()}/verdicts`, { id, verdict }));
  if (!row) return;
  take(row);
  show();
  find("status").textContent = `${row.name}: kept as ${verdict === "good" ? "good" : "a defect"}.`;
  const drift = await tried(() => json(`${base()}/drift`));
  if (drift) showDrift(drift);
}

function select(id) {
  chosen = id;
  show();
  if (id !== null) cards.get(id).scrollIntoView({ block: "nearest" });
}

async function upload(files) {
  const queue = [...files];
  const total = queue.length;
  if (!total) return;
  let done = 0;
  let failed = 0;
  const bar = find("progress");
  bar.hidden = false;
  const worker = async () => {
    while (queue.length) {
      const file = queue.shift();
      const error = await sendImage(file);
      done += 1;
      failed += error ? 1 : 0;
      bar.value = done / total;
      find("status").textContent = error || `${done} of ${total} images judged${failed ? `, ${failed} could not be read` : ""}.`;
      show();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  bar.hidden = true;
  await look();
}

// Returns what went wrong, or an empty text.
async function sendImage(file) {
  const path = `${base()}/predict?pictures=overlay&file_name=${encodeURIComponent(file.name)}`;
  for (;;) {
    try {
      const headers = { "Content-Type": "application/octet-stream" };
      const answer = await (await ask(path, { method: "POST", body: file, headers })).json();
      const [row] = answer.predictions;
      take({ time: Date.now() / 1000, verdict: null, ...row });
      banner("");
      return "";
    } catch (error) {
      if (error instanceof Refused && error.status === 429) await sleep(error.wait);
      else return error instanceof Refused ? `${file.name}: ${error.message}` : "The service does not answer.";
    }
  }
}

function move(step) {
  const ids = [...find("list").children].map((item) => Number(item.dataset.id));
  if (!ids.length) return;
  const at = ids.indexOf(chosen);
  select(ids[Math.max(0, Math.min(ids.length - 1, at < 0 ? 0 : at + step))]);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select") || document.querySelector("dialog[open]")) return;
  const keys = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    g: () => chosen !== null && say(null, chosen, "good"),
    d: () => chosen !== null && say(null, chosen, "defect"),
    f: () => { const names = Object.keys(FILTERS); filter = names[(names.indexOf(filter) + 1) % names.length]; show(); },
    "?": () => find("help").showModal(),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
}

function theme(next) {
  document.documentElement.dataset.theme = next;
  localStorage.setItem("flowad-theme", next);
}

function listen() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  theme(localStorage.getItem("flowad-theme") || (isDark ? "dark" : "light"));
  find("theme").onclick = () => { theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); };
  find("help-button").onclick = () => find("help").showModal();
  find("rate").oninput = slide;
  find("detector").onchange = (event) => choose(event.target.value);
  find("files").onchange = async (event) => { await upload(event.target.files); event.target.value = ""; };
  const drop = find("drop");
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { drop.classList.remove("over"); upload(event.dataTransfer.files); });
  for (const button of document.querySelectorAll("[data-filter]")) button.onclick = () => { filter = button.dataset.filter; show(); };
  find("reset").onclick = () => find("sure").showModal();
  find("sure").addEventListener("close", async (event) => {
    if (event.target.returnValue !== "yes") return;
    const drift = await tried(() => json(`${base()}/drift/reset`, { method: "POST" }));
    if (drift) showDrift(drift);
  });
  document.addEventListener("keydown", press);
}

async function start() {
  listen();
  let found = null;
  while (!(found = await tried(() => json("/v1/detectors")))) await sleep(POLL);
  for (const one of found.detectors) find("detector").add(new Option(one.name, one.name));
  const names = found.detectors.map((one) => one.name);
  const before = sessionStorage.getItem("flowad-detector");
  const first = names.includes(before) ? before : names[0];
  find("detector").value = first;
  await choose(first);
  for (;;) {
    await sleep(POLL);
    if (!document.hidden && detector) await look();
  }
}

start();
