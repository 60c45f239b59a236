"use strict";
// Whatever came from a run is put on the page as text (textContent), never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Missing values come last whichever way it is sorted.
function compare(a, b) {
  if (a === null || a === "") return b === null || b === "" ? 0 : 1;
  if (b === null || b === "") return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}
const missing = (value) => value === null || value === "";

// -- theme ------------------------------------------------------------------------------------------------------------

const THEMES = ["system", "light", "dark"];
function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  try { localStorage.setItem("theme", theme); } catch { /* a page without storage keeps it until it is closed */ }
}
{
  let stored = null;
  try { stored = localStorage.getItem("theme"); } catch { /* as above */ }
  let theme = THEMES.includes(stored) ? stored : "system";
  setTheme(theme);
  $("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    setTheme(theme);
  });
}

// -- sortable tables --------------------------------------------------------------------------------------------------

function sortValue(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" || isNaN(text) ? text : Number(text);
}

function mark(heading, headings) {
  const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  return direction === "ascending" ? 1 : -1;
}

function order(items, value, sign) {
  return items.map((item) => [value(item), item]).sort(([a], [b]) => (missing(a) || missing(b) ? 1 : sign) * compare(a, b)).map(([, item]) => item);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = make("button", { type: "button" }, heading.textContent);
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = mark(heading, headings);
      const body = table.tBodies[0];
      body.append(...order([...body.rows], (row) => sortValue(row.cells[column]), sign));
    });
  });
}

// -- curves -----------------------------------------------------------------------------------------------------------

const FLOOR = 0.005; // percent: where 100 % stands on the axis of the error rate
const chosen = { groups: new Set(), singles: new Set() };
data.groups.slice(0, 6).forEach((_, i) => chosen.groups.add(i));
data.singles.forEach((run, i) => { if (run.group < 3) chosen.singles.add(i); });
if (!data.singles.length) $("lines").remove(1);

for (const metric of data.metrics) $("metric").append(make("option", { value: metric.key }, metric.title));
$("metric").value = data.metrics.some((metric) => metric.key === data.metric) ? data.metric : data.metrics[0]?.key;

const lines = () => data[$("lines").value];
const shown = () => chosen[$("lines").value];
const look = (i) => ({ class: `c${i % 8}`, "stroke-dasharray": ["none", "7 3", "2 3", "9 3 2 3"][Math.floor(i / 8) % 4] });
const format = (x) => (x === null || x === undefined ? "–" : String(Number(x.toPrecision(4))));

function scales(values, last, kind, width, height) {
  const log = $("log").checked;
  const forward = !log || kind === "linear" ? (y) => y
    : kind === "accuracy" ? (y) => -Math.log10(Math.max(100 - y, FLOOR))
    : (y) => Math.log10(Math.max(y, 1e-12));
  const inverse = !log || kind === "linear" ? (v) => v : kind === "accuracy" ? (v) => 100 - 10 ** -v : (v) => 10 ** v;
  const ends = [Infinity, -Infinity];
  for (const y of values) {
    if (y === null || (kind === "log" && log && y <= 0)) continue;
    ends[0] = Math.min(ends[0], forward(y));
    ends[1] = Math.max(ends[1], forward(y));
  }
  if (ends[0] > ends[1]) ends.splice(0, 2, 0, 1);
  const pad = Math.max((ends[1] - ends[0]) * 0.05, 1e-3);
  const [low, high] = [ends[0] - pad, ends[1] + pad];
  const box = { left: 52, right: width - 12, top: 24, bottom: height - 38 };
  const along = (e) => (last < 2 ? 0.5 : log ? Math.log(e) / Math.log(last) : (e - 1) / (last - 1));
  return {
    box, inverse, low, high, log,
    x: (e) => box.left + 8 + along(e) * (box.right - box.left - 16),
    y: (v) => box.bottom - (Math.min(Math.max(forward(v), low), high) - low) / (high - low) * (box.bottom - box.top),
    inside: (v) => forward(v) >= low && forward(v) <= high,
  };
}

function ticks(scale, kind) {
  const low = scale.inverse(scale.low), high = scale.inverse(scale.high);
  if (scale.log && kind === "accuracy") {
    const all = [0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.99];
    const found = all.filter((y) => y >= low && y <= high);
    if (found.length > 2) return found;
  } else if (scale.log && kind === "log") {
    const found = [];
    for (let power = -9; power < 9; power++) for (const step of [1, 2, 5]) {
      const y = step * 10 ** power;
      if (y >= low && y <= high) found.push(y);
    }
    if (found.length > 10) return found.filter((y) => /^[^1-9]*1[^1-9]*$/.test(String(y)) || /^1e/.test(String(y)));
    if (found.length > 2) return found;
  }
  const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

const epochTicks = (last) => [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].filter((e) => e <= last);

let scale = null;

function redraw() {
  const chart = $("chart"), metric = data.metrics.find((metric) => metric.key === $("metric").value);
  if (!metric) return;
  const { width, height } = chart.getBoundingClientRect();
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.replaceChildren();
  const visible = [...shown()].sort((a, b) => a - b).map((i) => [i, lines()[i]]);
  const last = Math.max(1, ...visible.map(([, line]) => line.values[metric.key].length));
  // What diverging runs reached must not squeeze the rest: three times the greatest loss of the others is enough.
  const calm = visible.filter(([, line]) => !line.stops.length).flatMap(([, line]) => line.values[metric.key]);
  const roof = metric.scale === "log" && calm.length ? 3 * calm.reduce((a, b) => Math.max(a, b ?? 0), 0) : Infinity;
  scale = scales(visible.flatMap(([, line]) => line.values[metric.key]).filter((y) => y === null || y <= roof), last, metric.scale, width, height);
  const { box } = scale;
  for (const tick of ticks(scale, metric.scale)) {
    chart.append(draw("line", { class: "grid", x1: box.left, x2: box.right, y1: scale.y(tick), y2: scale.y(tick) }));
    chart.append(draw("text", { x: box.left - 6, y: scale.y(tick) + 4, "text-anchor": "end" }, format(tick)));
  }
  const marks = scale.log ? epochTicks(last) : ticks({ inverse: (v) => v, low: 1, high: Math.max(last, 2), log: false }, "linear").filter((e) => e % 1 === 0);
  for (const e of marks) {
    chart.append(draw("line", { class: "grid", x1: scale.x(e), x2: scale.x(e), y1: box.top, y2: box.bottom }));
    chart.append(draw("text", { x: scale.x(e), y: box.bottom + 16, "text-anchor": "middle" }, e));
  }
  chart.append(draw("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, "epoch"));
  chart.append(draw("text", { x: 4, y: 14 }, `${metric.title}: ${metric.axis}`));
  const point = (y, i) => `${scale.x(i + 1).toFixed(1)},${scale.y(y).toFixed(1)}`;
  for (const [i, line] of visible) {
    const mean = line.values[metric.key], half = line.half?.[metric.key];
    if (half) {
      const known = mean.map((y, k) => [y, half[k], k]).filter(([y, h]) => y !== null && h !== null);
      const upper = known.map(([y, h, k]) => point(y + h, k)), lower = known.map(([y, h, k]) => point(y - h, k)).reverse();
      chart.append(draw("polygon", { class: `band c${i % 8}`, points: [...upper, ...lower].join(" ") }));
    }
    const path = mean.map((y, k) => (y === null ? "" : `${k && mean[k - 1] !== null ? "L" : "M"}${point(y, k)}`)).join("");
    const { class: color, "stroke-dasharray": dash } = look(i);
    chart.append(draw("path", { class: `curve ${color}`, "stroke-dasharray": dash, d: path }));
    if (mean.length === 1) chart.append(draw("circle", { class: color, cx: scale.x(1), cy: scale.y(mean[0]), r: 3 }));
    for (const [epoch, values] of line.stops) {
      const x = scale.x(Math.max(epoch, 1)), v = values[metric.key];
      const y = v === null || v === undefined ? (metric.scale === "accuracy" ? box.bottom : box.top) : scale.y(v);
      chart.append(draw("path", { class: `stop ${color}`, d: `M${x - 5},${y - 5}l10,10m0,-10l-10,10` }));
    }
  }
  const slider = $("epoch"), atEnd = slider.value === slider.max;
  slider.max = last;
  if (atEnd || Number(slider.value) > last) slider.value = last;
  chart.append(draw("line", { class: "cursor", id: "cursor", y1: box.top, y2: box.bottom }));
  point_at(Number(slider.value));
}

function point_at(epoch) {
  $("epoch").value = epoch;
  $("epoch-value").textContent = epoch;
  const cursor = $("cursor");
  if (cursor) { cursor.setAttribute("x1", scale.x(epoch)); cursor.setAttribute("x2", scale.x(epoch)); }
  const key = $("metric").value;
  for (const item of $("legend").children) {
    const line = lines()[item.dataset.index], value = line.values[key]?.[epoch - 1], half = line.half?.[key]?.[epoch - 1];
    item.querySelector(".value").textContent = format(value) + (half ? ` ± ${Number(half.toPrecision(2))}` : "");
  }
}

function relist() {
  const words = $("curve-find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = lines().map((line, i) => [line, i]).filter(([line]) => words.every((word) => line.label.toLowerCase().includes(word)));
  $("legend").replaceChildren(...found.map(([line, i]) => {
    const box = make("input", { type: "checkbox", checked: shown().has(i) });
    box.addEventListener("change", () => { shown()[box.checked ? "add" : "delete"](i); redraw(); });
    const sample = draw("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" });
    sample.append(draw("path", { ...look(i), d: "M0,5H28", "stroke-width": 2.5 }));
    const label = make("label", {}, box, sample, make("span", { className: "name" }, line.label), make("span", { className: "value" }));
    return make("li", { "data-index": i }, label);
  }));
  $("curve-count").textContent = `${found.length} of ${lines().length} listed`;
  redraw();
}

$("curve-controls").addEventListener("submit", (event) => event.preventDefault());
$("metric").addEventListener("change", redraw);
$("log").addEventListener("change", redraw);
$("lines").addEventListener("change", relist);
$("curve-find").addEventListener("input", relist);
$("epoch").addEventListener("input", () => point_at(Number($("epoch").value)));
$("show-all").addEventListener("click", () => { for (const item of $("legend").children) shown().add(Number(item.dataset.index)); relist(); });
$("show-none").addEventListener("click", () => { shown().clear(); relist(); });
$("chart").addEventListener("pointermove", (event) => {
  if (!scale) return;
  const x = event.clientX - $("chart").getBoundingClientRect().left;
  let nearest = 1;
  for (let e = 2; e <= Number($("epoch").max); e++) if (Math.abs(scale.x(e) - x) < Math.abs(scale.x(nearest) - x)) nearest = e;
  point_at(nearest);
});
new ResizeObserver(redraw).observe($("chart").parentElement);
relist();

// -- runs -------------------------------------------------------------------------------------------------------------

const PAGE = 25;
const columns = data.runs.columns.map((column) => ({ ...column, at: column.words ? (row) => column.words[column.values[row]] : (row) => column.values[row] }));
const column = new Map(columns.map((column) => [column.name, column]));
const main = columns.filter((column) => column.main);
let rows = [], first = 0, sorting = null;

const OPERATORS = {
  "=": (a, b) => b.some((x) => compare(a, x) === 0), "!=": (a, b) => b.every((x) => compare(a, x) !== 0),
  "<": (a, [b]) => a < b, "<=": (a, [b]) => a <= b, ">": (a, [b]) => a > b, ">=": (a, [b]) => a >= b,
};

function condition(word) {
  const [, name, sign, text] = word.match(/^([^=!<>]+)(<=|>=|!=|=|<|>)(.*)$/) ?? [];
  if (["tag", "tags"].includes(name) && ["=", "!="].includes(sign)) {
    const tagged = (row) => (column.get("tags").at(row) ?? "").split(",").some((tag) => text.split(",").includes(tag));
    return (row) => tagged(row) === (sign === "=");
  }
  if (column.has(name)) {
    const values = text.split(",").map((x) => (x === "" || isNaN(x) ? x : Number(x)));
    return (row) => !missing(column.get(name).at(row)) && OPERATORS[sign](column.get(name).at(row), values);
  }
  const part = word.toLowerCase();
  return (row) => columns.some((column) => String(column.at(row) ?? "").toLowerCase().includes(part));
}

function find() {
  const conditions = $("run-filter").value.split(/\s+/).filter(Boolean).map(condition);
  rows = Array.from({ length: data.runs.count }, (_, row) => row).filter((row) => conditions.every((holds) => holds(row)));
  if (sorting) rows = order(rows, (row) => sorting.column.at(row), sorting.sign);
  first = 0;
  list();
}

function detail(row) {
  const facts = columns.filter((column) => !missing(column.at(row))).map((column) => make("div", {}, make("dt", {}, column.name), make("dd", {}, String(column.at(row)))));
  return make("tr", { className: "detail" }, make("td", { colSpan: main.length }, make("dl", {}, ...facts)));
}

function list() {
  const body = $("run-table").tBodies[0];
  body.replaceChildren(...rows.slice(first, first + PAGE).map((row) => make("tr", {}, ...main.map((column, i) => {
    const text = column.at(row) === null ? "–" : String(column.at(row));
    if (i) return make("td", { className: typeof column.at(row) === "number" ? "number" : "" }, text);
    const button = make("button", { type: "button", "aria-expanded": "false" }, text);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true", line = button.closest("tr");
      button.setAttribute("aria-expanded", String(!open));
      if (open) line.nextSibling.remove();
      else line.after(detail(row));
    });
    return make("td", {}, button);
  }))));
  const end = Math.min(first + PAGE, rows.length);
  $("run-count").textContent = rows.length ? `${first + 1}–${end} of ${rows.length}` : "none";
  $("previous").disabled = first === 0;
  $("next").disabled = end === rows.length;
}

{
  const headings = main.map((column) => {
    const button = make("button", { type: "button" }, column.name), heading = make("th", { scope: "col" }, button);
    button.addEventListener("click", () => { sorting = { column, sign: mark(heading, headings) }; find(); });
    return heading;
  });
  $("run-table").tHead.append(make("tr", {}, ...headings));
}
$("run-controls").addEventListener("submit", (event) => event.preventDefault());
$("run-filter").addEventListener("input", find);
$("previous").addEventListener("click", () => { first -= PAGE; list(); });
$("next").addEventListener("click", () => { first += PAGE; list(); });
find();
