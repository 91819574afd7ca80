// Small charts as SVG.

const SPACE = "http://www.w3.org/2000/svg";

function element(name, values, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function begin(svg) {
  const { width, height } = svg.getBoundingClientRect();
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width || 300} ${height || 100}`);
  return [width || 300, height || 100];
}

export function short(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3)
    ? value.toExponential(1)
    : Number(value.toPrecision(3)).toString();
}

// Scores of good images as bars, the threshold as a line, the newest image as a dot.
export function histogram(svg, scores, threshold, newest) {
  const [width, height] = begin(svg);
  if (!scores.length) {
    svg.append(element("text", { x: 4, y: 20 }, "No held-out images."));
    return;
  }
  const shown = [...scores, ...[threshold, newest].filter((x) => Number.isFinite(x))];
  const low = Math.min(...shown);
  const high = Math.max(...shown);
  const span = high - low || 1;
  const x = (value) => 6 + ((value - low) / span) * (width - 12);
  const bins = Math.max(8, Math.min(30, Math.round(width / 16)));
  const counts = new Array(bins).fill(0);
  for (const score of scores) counts[Math.min(bins - 1, Math.floor(((score - low) / span) * bins))] += 1;
  const most = Math.max(...counts);
  const step = (width - 12) / bins;
  const base = height - 20;
  counts.forEach((count, bin) => {
    const tall = (count / most) * (base - 10);
    svg.append(element("rect", { class: "bar", x: 6 + bin * step, y: base - tall, width: Math.max(1, step - 2), height: tall }));
  });
  svg.append(element("line", { class: "axis", x1: 6, x2: width - 6, y1: base, y2: base }));
  if (Number.isFinite(threshold)) svg.append(element("line", { class: "limit", x1: x(threshold), x2: x(threshold), y1: 0, y2: base }));
  if (Number.isFinite(newest)) svg.append(element("circle", { class: "newest", cx: x(newest), cy: base - 8, r: 8 }));
  svg.append(element("text", { x: 6, y: height - 3 }, short(low)));
  svg.append(element("text", { x: width - 6, y: height - 3, "text-anchor": "end" }, short(high)));
}

// A line over consecutive images; on a log scale with a limit for the drift statistic.
export function course(svg, values, { log = false, limit = null, labels = true } = {}) {
  const [width, height] = begin(svg);
  const known = values.filter((x) => x !== null);
  if (!known.length) return;
  const scale = log ? (x) => Math.log10(Math.max(x, 1e-6)) : (x) => x;
  const ends = [...known, ...(limit === null ? [] : [limit])].map(scale);
  const low = Math.min(...ends);
  const high = Math.max(...ends);
  const bottom = height - (labels ? 18 : 4);
  const y = (value) => bottom - ((scale(value) - low) / (high - low || 1)) * (bottom - 8);
  const x = (index) => 4 + (index / Math.max(1, values.length - 1)) * (width - 8);
  const points = values.map((value, index) => (value === null ? null : `${x(index)},${y(value)}`));
  svg.append(element("polyline", { class: "line", points: points.filter(Boolean).join(" ") }));
  if (limit !== null) {
    svg.append(element("line", { class: "limit", x1: 4, x2: width - 4, y1: y(limit), y2: y(limit) }));
    svg.append(element("text", { x: 6, y: y(limit) + 15 }, `alarm at ${short(limit)}`));
  }
  if (labels) svg.append(element("text", { x: width - 4, y: height - 3, "text-anchor": "end" }, `now ${short(known.at(-1))}`));
}
