// The table of runs or groups, and what it says of the best.

const PAGE = 12;
const MOST_CHOSEN = 200;

const look = (slot) => ({
  class: `line c${slot % 8}`,
  "stroke-dasharray": ["none", "7 3", "2 3", "9 3 2 3"][Math.floor(slot / 8) % 4],
});
const number = (column, stat, digits) => (plain(column) && stat.n < 2 ? short(stat.mean) : fixed(stat.mean, digits));
const withHalf = (column, stat, digits) =>
  number(column, stat, digits) + (stat.half === null || missing(stat.half) ? "" : ` ± ${fixed(stat.half, digits)}`);
const unitOf = (column) => (column?.scale === "accuracy" ? " %" : "");
const titleOf = (column) => (column.kind === "measure" ? column.title : column.name);

// Of the columns that are wanted, those that say something in these rows: the configuration, what ranks it, the rest.
function shownColumns() {
  if (state.cols !== null) return state.cols.map((name) => columnOf.get(name)).filter(Boolean);
  const by = byColumn(),
    single = state.rows === "runs",
    keys = groupKeys();
  const isKey = (column) => ["key", "seed"].includes(column.kind);
  const config = columns.filter((c) =>
    single
      ? (c.kind === "key" && c.main) || (c.kind === "seed" && !c.constant)
      : isKey(c) && keys.includes(c) && (c.main || (state.group !== null && !c.constant)),
  );
  const rest = columns.filter((c) => !isKey(c) && c !== by && (c.main || (single && c.name === "state")));
  const ranking = by ? [by] : [];
  return innerWidth < 640 ? [...ranking, ...config, ...rest] : [...config, ...ranking, ...rest];
}

// -- the answer ---------------------------------------------------------------------------------------------------------

function answer() {
  const box = $("answer"),
    column = byColumn();
  const [first, ...others] = best.filter((row) => column && !missing(row.value(column)));
  if (!first)
    return box.replaceChildren(best.length ? "No run has a value to compare by yet." : "No run fulfils the filter.");
  const stat = first.stat(column),
    keys = labelKeys(best),
    digits = decimals([stat, ...others.slice(0, PAGE - 1).map((row) => row.stat(column))], column);
  const head = make(
    "p",
    {},
    make("strong", {}, label(first, keys)),
    best.length > 1 ? ` has the ${column.high ? "highest" : "lowest"} ${column.title}: ` : `: ${column.title} `,
    make("strong", {}, withHalf(column, stat, digits) + unitOf(column)),
    stat.n > 1 ? ` (mean and 95 % interval of ${stat.n} runs).` : " (one run).",
  );
  const note = make("p", { className: "note" });
  if (others.length && stat.n < 2)
    note.append(
      state.rows === "runs"
        ? "How sure that is, groups over seeds can say."
        : "How sure that is cannot be said from one run: train more seeds.",
    );
  else if (others.length) {
    let worse = 0,
      open = 0,
      unknown = 0;
    for (const row of others) {
      const found = difference(stat, row.stat(column));
      if (!found) unknown++;
      else if (Math.abs(found.mean) > found.half) worse++;
      else open++;
    }
    const parts = [];
    if (worse)
      parts.push(
        `${worse.toLocaleString("en")} ${worse === 1 ? "is" : "are"} clearly ${column.high ? "lower" : "higher"}`,
      );
    if (open) parts.push(`${open.toLocaleString("en")} cannot be told from it`);
    if (unknown) parts.push(`${unknown.toLocaleString("en")} ${unknown === 1 ? "has" : "have"} one run only`);
    const total = others.length.toLocaleString("en");
    const said =
      parts.length > 1
        ? `Of the other ${total}, ${parts.join(", ")}`
        : others.length > 1
          ? `All other ${parts[0]}`
          : `The other ${parts[0].replace(/^1 /, "")}`;
    note.append(`${said}: by the 95 % interval of each difference alone (Welch).`);
  }
  box.replaceChildren(head, note);
}

// -- a picture in each row: a dot for each seed, the mean and its interval ----------------------------------------------

const STRIP = { width: 168, height: 20, pad: 6 };
// What fits the rows on the screen; far outliers are at the edge.
function stripRange(shown, column) {
  const forward = TURNS[column.scale][0],
    ends = [];
  for (const row of shown) {
    const { mean, half } = row.stat(column);
    if (half !== null) ends.push(forward(mean - half), forward(mean + half));
    for (const run of row.runs.slice(0, 100)) if (!missing(column.at(run))) ends.push(forward(column.at(run)));
  }
  if (!ends.length) return null;
  ends.sort((a, b) => a - b);
  const middle = ends[ends.length >> 1],
    spread = Math.max(...[0.1, 0.9].map((q) => Math.abs(ends[Math.floor(q * (ends.length - 1))] - middle)), 1e-9);
  const low = Math.max(ends[0], middle - 4 * spread),
    high = Math.min(ends.at(-1), middle + 4 * spread);
  const pad = (high - low) * 0.04 || 1e-3;
  return { forward, low: low - pad, high: high + pad };
}

function strip(row, column, range, slot) {
  const picture = draw("svg", {
    class: `strip c${(slot ?? 5) % 8}`,
    viewBox: `0 0 ${STRIP.width} ${STRIP.height}`,
    width: STRIP.width,
    height: STRIP.height,
    "aria-hidden": "true",
  });
  const x = (value) => {
    const place = (range.forward(value) - range.low) / (range.high - range.low);
    return STRIP.pad + Math.min(Math.max(place, -0.02), 1.02) * (STRIP.width - 2 * STRIP.pad);
  };
  picture.append(draw("line", { class: "grid", x1: STRIP.pad, x2: STRIP.width - STRIP.pad, y1: 15, y2: 15 }));
  const stat = row.stat(column);
  const dots = row.runs
    .filter((run) => !missing(column.at(run)))
    .slice(0, 300)
    .map((run) => `M${x(column.at(run)).toFixed(1)},15h0`)
    .join("");
  picture.append(draw("path", { class: "seeds", d: dots }));
  if (!missing(stat.mean)) {
    if (!missing(stat.half)) {
      const [low, high] = [x(stat.mean - stat.half), x(stat.mean + stat.half)];
      picture.append(draw("path", { class: "range", d: `M${low.toFixed(1)},6H${high.toFixed(1)}` }));
    }
    picture.append(draw("path", { class: "middle", d: `M${x(stat.mean).toFixed(1)},2v8` }));
  }
  return picture;
}

// -- the table ----------------------------------------------------------------------------------------------------------

function detail(run, width) {
  const facts = columns.filter((column) => !missing(column.at(run)));
  const items = facts.map((column) =>
    make("div", {}, make("dt", {}, column.name), make("dd", {}, String(column.at(run)))),
  );
  return make("tr", { className: "detail" }, make("td", { colSpan: width }, make("dl", {}, ...items)));
}

function cell(row, column, digits) {
  if (column.kind === "measure" && column.numeric) {
    const stat = row.stat(column);
    const td = make("td", { className: "number" }, number(column, stat, digits));
    if (!missing(stat.half)) td.append(make("span", { className: "half" }, ` ± ${fixed(stat.half, digits)}`));
    return td;
  }
  const value = row.value(column);
  return make(
    "td",
    { className: typeof value === "number" ? "number" : "text" },
    column.kind === "measure" ? short(value) : missing(value) ? "–" : cut(String(value), 60),
  );
}

function ended(row) {
  const at = columnOf.get("state").at,
    states = new Map();
  for (const run of row.runs) if (at(run) !== "finished") states.set(at(run), (states.get(at(run)) ?? 0) + 1);
  return [...states].map(([word, n]) =>
    make("span", { className: `state ${word}` }, row.runs.length > 1 ? ` ${n} ${word}` : ` ${word}`),
  );
}

const isOpen = (row) => (state.open ?? []).includes(nameOf(row.first));

function tableRow(row, shown, look_at, nested) {
  const slot = slotOf(row),
    named = nested || state.rows === "runs";
  const title = named ? nameOf(row.first) : counted(row.runs.length, "run");
  const box = make("input", {
    type: "checkbox",
    checked: slot !== null,
    ariaLabel: `Choose ${label(row, look_at.keys)}`,
  });
  box.addEventListener("change", () => {
    choose(row, box.checked);
    change();
  });
  const button = make(
    "button",
    { type: "button", className: "open", "aria-expanded": String(isOpen(row) && !nested) },
    title,
  );
  const tr = make(
    "tr",
    { className: nested ? "nested" : "" },
    make(
      "th",
      { scope: "row" },
      make("span", { className: "name" }, nested ? null : box, nested ? null : swatch(slot), button, ...ended(row)),
    ),
  );
  for (const column of shown) {
    tr.append(cell(row, column, look_at.digits.get(column)));
    if (column === look_at.by && look_at.range)
      tr.append(make("td", { className: "strip" }, strip(row, column, look_at.range, slot)));
  }
  button.addEventListener("click", () => {
    if (nested) {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) tr.nextSibling.remove();
      else tr.after(detail(row.first, look_at.width));
      return;
    }
    const name = nameOf(row.first),
      open = new Set(state.open ?? []);
    if (!open.delete(name)) open.add(name);
    state.open = open.size ? [...open] : null;
    table();
    writeAddress();
    [...$("run-table").querySelectorAll("tbody .open")]
      .find((b) => b.textContent === title && b.closest("tr").dataset.run === name)
      ?.focus();
  });
  tr.dataset.run = nameOf(row.first);
  return tr;
}

function swatch(slot) {
  const sample = draw("svg", { class: "swatch", viewBox: "0 0 22 10", "aria-hidden": "true" });
  if (slot !== null) sample.append(draw("path", { ...look(slot), d: "M0,5H22" }));
  return sample;
}

const MOST_NESTED = 50;

function table() {
  const shown = shownColumns(),
    last = Math.max(Math.ceil(rows.length / PAGE) - 1, 0);
  const page = Math.min(Math.max(Number(state.page) || 0, 0), last);
  const visible = rows.slice(page * PAGE, (page + 1) * PAGE),
    by = byColumn();
  const measured = shown.filter((column) => column.kind === "measure" && column.numeric);
  const digits = new Map(
    measured.map((column) => [
      column,
      decimals(
        visible.map((row) => row.stat(column)),
        column,
      ),
    ]),
  );
  const range = by && shown.includes(by) ? stripRange(visible, by) : null;
  const look_at = { by, range, digits, keys: labelKeys(best), width: shown.length + 1 + (range ? 1 : 0) };
  const heading = (column, title) => {
    const sorted =
      state.sort.replace(/^-/, "") === column.name
        ? state.sort[0] === "-"
          ? "descending"
          : "ascending"
        : !columnOf.has(state.sort.replace(/^-/, "")) && column === by
          ? column.high
            ? "descending"
            : "ascending"
          : "none";
    const button = make("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      const first = column.kind === "measure" && column.high ? "-" : "";
      state.sort = sorted === "none" ? first + column.name : (sorted === "ascending" ? "-" : "") + column.name;
      state.page = "0";
      change();
      [...$("run-table").querySelectorAll("thead button")].find((b) => b.textContent === title)?.focus();
    });
    return make(
      "th",
      {
        scope: "col",
        className: column.kind === "measure" ? "number measure" : column.numeric ? "number" : "",
        "aria-sort": sorted,
      },
      button,
    );
  };
  const head = make("tr", {}, make("th", { scope: "col" }, state.rows === "runs" ? "Run" : "Runs"));
  for (const column of shown) {
    head.append(heading(column, titleOf(column)));
    if (column === by && range) {
      const ends = [range.low, range.high].map(TURNS[column.scale][1]);
      head.append(
        make(
          "th",
          { scope: "col", className: "strip" },
          make(
            "span",
            { className: "ends" },
            make("span", {}, short3(ends[0])),
            make("span", {}, "each run"),
            make("span", {}, short3(ends[1])),
          ),
        ),
      );
    }
  }
  $("run-table").tHead.replaceChildren(head);
  const body = [];
  for (const row of visible) {
    body.push(tableRow(row, shown, look_at, false));
    if (!isOpen(row)) continue;
    if (state.rows === "runs") {
      body.push(detail(row.first, look_at.width));
      continue;
    }
    body.push(...row.runs.slice(0, MOST_NESTED).map((run) => tableRow(new Row([run]), shown, look_at, true)));
    if (row.runs.length > MOST_NESTED)
      body.push(
        make(
          "tr",
          { className: "nested" },
          make(
            "td",
            { colSpan: look_at.width },
            `And ${row.runs.length - MOST_NESTED} more: choose single runs and filter to see them.`,
          ),
        ),
      );
  }
  $("run-table").tBodies[0].replaceChildren(...body);
  const what = state.rows === "runs" ? "run" : state.group === null ? "configuration" : "group";
  const end = Math.min((page + 1) * PAGE, rows.length),
    total = counted(rows.length, what);
  const number_chosen = best.filter((row) => slotOf(row) !== null).length;
  $("run-count").textContent = rows.length
    ? `${rows.length > PAGE ? `${page * PAGE + 1}–${end} of ` : ""}${total}, ${number_chosen} chosen`
    : "none";
  $("previous").disabled = page === 0;
  $("next").disabled = page === last;
  for (const id of ["previous", "next"]) $(id).hidden = last === 0;
}
const short3 = (value) => String(Number(value.toPrecision(Math.abs(value) >= 90 && Math.abs(value) < 100 ? 4 : 3)));

// -- what is in the table as CSV ------------------------------------------------------------------------------------------

// A text that a spreadsheet would take for a formula gets an apostrophe.
function csvCell(value) {
  if (missing(value)) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) && isNaN(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
const csv = (lines) => lines.map((line) => line.map(csvCell).join(",") + "\n").join("");

function save(name, type, content) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function tableCsv() {
  const shown = shownColumns(),
    single = state.rows === "runs";
  const parts = (column) =>
    column.kind === "measure" && column.numeric && !single
      ? [column.name, `${column.name}_half`, `${column.name}_n`]
      : [column.name];
  const lines = rows.map((row) => [
    single ? nameOf(row.first) : row.runs.length,
    ...shown.flatMap((column) => {
      if (parts(column).length === 1) return [row.value(column)];
      const { mean, half, n } = row.stat(column);
      return [mean, half, n];
    }),
  ]);
  return csv([[single ? "run" : "runs", ...shown.flatMap(parts)], ...lines]);
}
