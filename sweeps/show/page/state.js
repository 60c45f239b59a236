"use strict";
// The data, what is chosen of them, and the address that says so.
// Whatever came from a run is put on the page as text (textContent), never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const ABSENT = "–";
const missing = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const counted = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

// Missing values come last whichever way it is sorted.
const collator = new Intl.Collator("en", { numeric: true });
function compare(a, b) {
  if (missing(a)) return missing(b) ? 0 : 1;
  if (missing(b)) return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}
function order(items, value, sign) {
  const keyed = items.map((item) => [value(item), item]);
  keyed.sort(([a], [b]) => (missing(a) || missing(b) ? 1 : sign) * compare(a, b));
  return keyed.map(([, item]) => item);
}

// -- runs, by column ----------------------------------------------------------------------------------------------------

const columns = data.columns.map((column) => {
  const { same, words, values } = column;
  const at = values === undefined ? () => same : words ? (run) => words[values[run]] : (run) => values[run];
  const numeric = values === undefined ? typeof same === "number" : !words;
  return { ...column, at, numeric, constant: values === undefined };
});
const columnOf = new Map(columns.map((column) => [column.name, column]));
const KEYS = columns.filter((column) => column.kind === "key");
const VARYING = KEYS.filter((column) => !column.constant);
const MEASURES = columns.filter((column) => column.kind === "measure");
const nameOf = columnOf.get("run").at;
const everyRun = Array.from({ length: data.count }, (_, run) => run);
const runCalled = new Map(everyRun.map((run) => [nameOf(run), run]));

// Equal values of a column have equal codes.
function codes(column) {
  if (column.words) return column.values;
  if (!column.codes) {
    const known = new Map();
    column.codes = everyRun.map((run) => {
      const value = column.at(run);
      if (!known.has(value)) known.set(value, known.size);
      return known.get(value);
    });
  }
  return column.codes;
}

// -- statistics over seeds ----------------------------------------------------------------------------------------------

// 97.5 % quantile of Student's t; beyond the table by its expansion, which is right to five digits there.
const quantile = (df) => data.t[df - 1] ?? 1.959964 + 2.37227 / df + 2.8225 / df ** 2;

// Mean, half of the 95 % interval and number of those that are there.
function interval(values) {
  const there = values.filter((value) => !missing(value));
  const n = there.length,
    mean = there.reduce((a, b) => a + b, 0) / n;
  if (n < 2) return { n, mean: n ? mean : null, half: null, variance: null };
  const variance = there.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { n, mean, half: quantile(n - 1) * Math.sqrt(variance / n), variance };
}

// a − b with half of its 95 % interval, by Welch; null with fewer than two values of either.
function difference(a, b) {
  if (a.n < 2 || b.n < 2) return null;
  const [u, v] = [a.variance / a.n, b.variance / b.n];
  const df = u + v ? (u + v) ** 2 / (u ** 2 / (a.n - 1) + v ** 2 / (b.n - 1)) : a.n + b.n - 2;
  return { mean: a.mean - b.mean, half: quantile(Math.max(Math.floor(df), 1)) * Math.sqrt(u + v) };
}

// -- the state, which is the address --------------------------------------------------------------------------------------

const LISTS = ["group", "cols", "chosen", "open"];
const DEFAULTS = {
  by: columnOf.has(data.judged) ? data.judged : (MEASURES[0]?.name ?? ""),
  rows: "groups",
  group: null,
  cols: null,
  sort: "",
  filter: "",
  page: "0",
  chosen: null,
  only: "",
  open: null,
  view: "curves",
  metric: (data.metrics.find((metric) => metric.key === data.metric) ?? data.metrics[0])?.key ?? "",
  x: "epoch",
  lines: "mean",
  smooth: "0",
  logx: "",
  logy: "",
  zoom: "",
  at: "",
  sx: "",
  sy: "",
  color: "",
  slogx: "",
  slogy: "",
};
const state = { ...DEFAULTS };

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(DEFAULTS)) {
    state[key] = !given.has(key) ? DEFAULTS[key] : LISTS.includes(key) ? given.getAll(key) : given.get(key);
  }
  if (!columnOf.has(state.by)) state.by = DEFAULTS.by;
}

function saveAddress() {
  const said = new URLSearchParams();
  for (const [key, standard] of Object.entries(DEFAULTS)) {
    if (state[key] === standard) continue;
    if (LISTS.includes(key)) for (const item of state[key].length ? state[key] : [""]) said.append(key, item);
    else said.set(key, state[key]);
  }
  const text = said.toString();
  if (text || location.hash.includes("=")) history.replaceState(null, "", `#${text}`);
}

// Not at each of many changes: browsers allow some hundred in half a minute.
let saving = 0;
function writeAddress() {
  clearTimeout(saving);
  saving = setTimeout(saveAddress, 150);
}

// -- filter: words, or conditions on a column -----------------------------------------------------------------------------

const BARE = /^[^\s"=!<>,]+$/;
const quoted = (text) => (BARE.test(text) ? text : `"${String(text).replace(/["\\]/g, "\\$&")}"`);
const unquoted = (text) => (text.startsWith('"') ? text.replace(/^"|"$/g, "").replace(/\\(.)/g, "$1") : text);
const PART = String.raw`(?:"(?:[^"\\]|\\.)*"?|[^"=!<>\s])`;
const WORDS = /(?:"(?:[^"\\]|\\.)*"?|[^\s"])+/g;
const CONDITION = new RegExp(`^(${PART}+)(<=|>=|!=|=|<|>)(.*)$`, "s");
const VALUES = /(?:"(?:[^"\\]|\\.)*"?|[^,"])+/g;

const OPERATORS = {
  "=": (a, b) => b.some((x) => compare(a, x) === 0),
  "!=": (a, b) => b.every((x) => compare(a, x) !== 0),
  "<": (a, [b]) => compare(a, b) < 0,
  "<=": (a, [b]) => compare(a, b) <= 0,
  ">": (a, [b]) => compare(a, b) > 0,
  ">=": (a, [b]) => compare(a, b) >= 0,
};

let haystack = null;
function hay(run) {
  haystack ??= [];
  const searched = (hay.columns ??= columns.filter((column) => !column.constant && !column.numeric));
  return (haystack[run] ??= searched
    .map((column) => column.at(run) ?? "")
    .join("\n")
    .toLowerCase());
}

// Each word of the filter: its text, its column if it is a condition, and the test of a value or of a run.
function conditions(filter) {
  return (filter.match(WORDS) ?? []).map((text) => {
    const [, rawName, sign, rest] = text.match(CONDITION) ?? [];
    const name = rawName && unquoted(rawName);
    if (["tag", "tags"].includes(name) && ["=", "!="].includes(sign)) {
      const tags = rest.split(","),
        at = columnOf.get("tags").at;
      const tagged = (run) => (at(run) ?? "").split(",").some((tag) => tags.includes(tag));
      return { text, holds: (run) => tagged(run) === (sign === "=") };
    }
    const column = columnOf.get(name);
    if (column) {
      const values = (rest.match(VALUES) ?? [""])
        .map(unquoted)
        .map((x) => (column.numeric && x !== "" && !isNaN(x) ? Number(x) : x));
      const test = (value) => (missing(value) ? sign === "=" && values.includes("") : OPERATORS[sign](value, values)); // name= is: has none
      return { text, column, sign, values, test, holds: (run) => test(column.at(run)) };
    }
    const part = unquoted(text).toLowerCase();
    const always = columns.some(
      (column) =>
        column.constant &&
        String(column.at(0) ?? "")
          .toLowerCase()
          .includes(part),
    );
    return { text, holds: (run) => always || hay(run).includes(part) };
  });
}

// The filter with other conditions on one column: what a brush leaves.
function withConditions(filter, column, fresh) {
  const others = conditions(filter)
    .filter((condition) => condition.column !== column)
    .map((condition) => condition.text);
  return [...others, ...fresh].join(" ");
}

// -- rows: groups of runs, or single ones ---------------------------------------------------------------------------------

const groupKeys = () =>
  state.group === null
    ? KEYS
    : state.group.map((name) => columnOf.get(name)).filter((c) => c && ["key", "seed"].includes(c.kind));

class Row {
  constructor(runs) {
    this.runs = runs;
    this.first = runs[0];
    this.stats = new Map();
  }
  stat(column) {
    if (!this.stats.has(column)) this.stats.set(column, interval(this.runs.map(column.at)));
    return this.stats.get(column);
  }
  // What stands in a cell, sorts and is filtered: a mean, the value that all have, or several values as one text.
  value(column) {
    if (column.kind === "measure" && column.numeric) return this.stat(column).mean;
    if (this.runs.length === 1 || column.constant) return column.at(this.first);
    const values = new Set(this.runs.map(column.at));
    if (values.size === 1) return column.at(this.first);
    const sorted = [...values].sort(compare);
    return sorted.length > 3 ? `${sorted.length} values` : sorted.map((value) => value ?? "–").join(", ");
  }
}

function grouped(runs) {
  if (state.rows === "runs") return runs.map((run) => new Row([run]));
  const keys = groupKeys()
      .filter((column) => !column.constant)
      .map(codes),
    found = new Map();
  for (const run of runs) {
    let key = "";
    for (const code of keys) key += `${code[run]},`;
    const members = found.get(key);
    if (members) members.push(run);
    else found.set(key, [run]);
  }
  return [...found.values()].map((members) => new Row(members));
}

const better = (column) => (column?.high ? -1 : 1); // as a sign for sorting
const byColumn = () => columnOf.get(state.by);
const ranked = (rows) => (byColumn() ? order(rows, (row) => row.value(byColumn()), better(byColumn())) : rows);

// Conditions on measured values are on a group's mean; all others choose the runs that make the groups.
function filtered(filter) {
  const all = conditions(filter),
    isOfRows = (c) => state.rows !== "runs" && c.column?.kind === "measure";
  const ofRuns = all.filter((c) => !isOfRows(c)),
    ofRows = all.filter(isOfRows);
  const rows = grouped(ofRuns.length ? everyRun.filter((run) => ofRuns.every((c) => c.holds(run))) : everyRun);
  return ofRows.length ? rows.filter((row) => ofRows.every((c) => c.test(row.value(c.column)))) : rows;
}

const AUTOMATIC = 6; // rows that are chosen until someone chooses
let rows = []; // of the table, in its order
let best = []; // the same by rank
let slots = new Map(); // run → its place among the chosen, which is its colour

function refresh() {
  best = ranked(filtered(state.filter));
  slots = new Map();
  if (state.chosen === null) best.slice(0, AUTOMATIC).forEach((row, slot) => slots.set(row.first, slot));
  else
    state.chosen.forEach((name, slot) => {
      if (runCalled.has(name)) slots.set(runCalled.get(name), slot);
    });
  const [, down, name] = state.sort.match(/^(-?)(.*)$/s);
  const sorting = columnOf.get(name);
  rows = !sorting ? best : order(best, (row) => row.value(sorting), down ? -1 : 1);
  if (state.only) rows = rows.filter((row) => slotOf(row) !== null);
}

function slotOf(row) {
  let found = null;
  for (const run of slots.size < row.runs.length
    ? [...slots.keys()].filter((run) => row.runs.includes(run))
    : row.runs) {
    const slot = slots.get(run);
    if (slot !== undefined && (found === null || slot < found)) found = slot;
  }
  return found;
}

const chosenRows = () =>
  order(
    best.filter((row) => slotOf(row) !== null),
    slotOf,
    1,
  );

// A row that is added takes the first free place, so that the others keep their colours.
function choose(row, wanted) {
  const list = [];
  for (const [run, slot] of slots) list[slot] = nameOf(run);
  for (let i = 0; i < list.length; i++) list[i] ??= "";
  if (wanted) {
    const free = list.indexOf("");
    list[free < 0 ? list.length : free] = nameOf(row.first);
  } else for (const run of row.runs) if (slots.has(run)) list[slots.get(run)] = "";
  while (list.length && list.at(-1) === "") list.pop();
  state.chosen = list;
}

// -- words --------------------------------------------------------------------------------------------------------------

const short = (value) =>
  missing(value) ? "–" : cut(typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value), 40);

// Whether an option follows from what it is an option of, as activ.approximate from activ.
function implied(column) {
  if (column.implied === undefined) {
    const of = columnOf.get(column.name.split(".")[0]),
      known = new Map();
    column.implied =
      Boolean(of) &&
      of !== column &&
      everyRun.every((run) => {
        if (!known.has(of.at(run))) known.set(of.at(run), column.at(run));
        return known.get(of.at(run)) === column.at(run);
      });
  }
  return column.implied;
}

// What tells rows apart, of the keys they are grouped by.
function labelKeys(of) {
  const keys =
    state.rows === "runs"
      ? [...VARYING, ...columns.filter((c) => c.kind === "seed" && !c.constant)]
      : groupKeys().filter((c) => !c.constant);
  const differing = keys.filter((column) => !implied(column) && new Set(of.map((row) => row.value(column))).size > 1);
  return differing.length ? differing : keys;
}
function label(row, keys) {
  const words = keys
    .filter((column) => !missing(row.value(column)))
    .map((column) => `${cut(column.name, 40)}=${short(row.value(column))}`);
  return words.join(", ") || nameOf(row.first);
}

// Decimals that show two digits of a usual interval, or tell the values of a column apart.
function decimals(stats, column) {
  const halves = stats
    .map((stat) => stat.half)
    .filter((half) => half > 0)
    .sort((a, b) => a - b);
  const means = stats.map((stat) => stat.mean).filter((mean) => !missing(mean));
  const largest = Math.max(...means.map(Math.abs), 1e-12),
    spread = Math.max(...means) - Math.min(...means);
  const unit = halves.length ? halves[halves.length >> 2] / 10 : spread > 0 ? spread / 100 : largest / 1e4;
  const least = column.scale === "accuracy" ? 2 : 0;
  return Math.min(Math.max(-Math.floor(Math.log10(Math.max(unit, largest / 1e6))), least), 8);
}
function fixed(value, digits) {
  if (missing(value)) return "–";
  const size = Math.abs(value);
  if (size && (size >= 1e7 || size < 10 ** -(digits + 1))) return value.toExponential(2);
  return value.toFixed(size >= 1e4 ? Math.min(digits, 1) : digits);
}
const plain = (column) =>
  column.numeric && column.kind === "measure" && ["epoch", "best_epoch"].includes(column.name);
