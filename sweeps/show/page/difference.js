// Tables about the rows: what differs between the chosen ones, and what explains the variance of all.

const MOST_DIFFERENT = 8; // columns

// -- difference ---------------------------------------------------------------------------------------------------------

const DIFFERENCE_MEASURES = () => MEASURES.filter((column) => column.numeric && !column.constant);

function differenceLines() {
  const shown = chosenRows().slice(0, MOST_DIFFERENT),
    keys = labelKeys(shown);
  const differing = (column) => new Set(shown.map((row) => JSON.stringify(row.value(column)))).size > 1;
  const lines = {
    keys: columns.filter((c) => ["key", "seed"].includes(c.kind) && differing(c)),
    facts: columns.filter(
      (c) => c.kind === "fact" && !["run", "started", "updated"].includes(c.name) && differing(c),
    ),
    measures: DIFFERENCE_MEASURES(),
  };
  return {
    shown,
    keys,
    lines,
    same: KEYS.filter((column) => shown.length && !differing(column) && !missing(shown[0].value(column))),
  };
}

function differenceView() {
  const { shown, keys, lines, same } = differenceLines(),
    box = $("difference-table");
  if (shown.length < 2) {
    $("difference-note").textContent = "Choose two or more rows in the table to compare them.";
    box.tHead.replaceChildren();
    box.tBodies[0].replaceChildren();
    $("same").replaceChildren();
    return;
  }
  const heads = shown.map((row) =>
    make(
      "th",
      { scope: "col" },
      swatch(slotOf(row)),
      " ",
      cut(label(row, keys), 60),
      make("div", { className: "note" }, state.rows === "runs" ? nameOf(row.first) : counted(row.runs.length, "run")),
    ),
  );
  box.tHead.replaceChildren(make("tr", {}, make("th", { scope: "col" }, "Column"), ...heads));
  const body = [],
    section = (title) =>
      body.push(
        make("tr", { className: "section" }, make("th", { scope: "colgroup", colSpan: shown.length + 1 }, title)),
      );
  if (lines.keys.length) section("Configuration: what differs");
  for (const column of lines.keys)
    body.push(make("tr", {}, make("th", { scope: "row" }, column.name), ...shown.map((row) => cell(row, column))));
  section("Results, and their difference from the first");
  for (const column of lines.measures) {
    const stats = shown.map((row) => row.stat(column)),
      digits = decimals(stats, column);
    if (stats.every((stat) => missing(stat.mean))) continue;
    body.push(
      make(
        "tr",
        {},
        make("th", { scope: "row" }, titleOf(column)),
        ...shown.map((row, i) => {
          const td = make("td", { className: "number" }, withHalf(column, stats[i], digits));
          if (!i || missing(stats[i].mean) || missing(stats[0].mean)) return td;
          const gap = difference(stats[i], stats[0]) ?? { mean: stats[i].mean - stats[0].mean, half: null };
          const clear = gap.half !== null && Math.abs(gap.mean) > gap.half;
          td.append(
            make(
              "div",
              { className: clear ? "gap clear" : "gap" },
              `${gap.mean > 0 ? "+" : gap.mean < 0 ? "−" : ""}${fixed(Math.abs(gap.mean), digits)}${gap.half === null ? "" : ` ± ${fixed(gap.half, digits)}`}`,
            ),
          );
          return td;
        }),
      ),
    );
  }
  if (lines.facts.length) section("Recorded: what differs");
  for (const column of lines.facts)
    body.push(make("tr", {}, make("th", { scope: "row" }, column.name), ...shown.map((row) => cell(row, column))));
  box.tBodies[0].replaceChildren(...body);
  const total = chosenRows().length;
  $("difference-note").textContent =
    `${total > shown.length ? `The first ${shown.length} of ${total} chosen. ` : ""}Bold: the 95 % interval of that difference alone (Welch) does not include 0.`;
  $("same").replaceChildren(
    ...same.map((column) =>
      make("div", {}, make("dt", {}, column.name), make("dd", {}, short(shown[0].value(column)))),
    ),
  );
}

function differenceCsv() {
  const { shown, keys, lines } = differenceLines();
  return csv([
    ["column", ...shown.map((row) => label(row, keys))],
    ...[...lines.keys, ...lines.measures, ...lines.facts].map((column) => [
      column.name,
      ...shown.map((row) => row.value(column)),
    ]),
  ]);
}

// -- importance ---------------------------------------------------------------------------------------------------------

const REST = ["interactions", "seeds", "interactions and noise"]; // what no key explains alone
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function bar(share, chance, isKey) {
  const picture = draw("svg", {
    class: "share",
    viewBox: "0 0 200 14",
    width: 200,
    height: 14,
    "aria-hidden": "true",
  });
  picture.append(
    draw("rect", {
      class: isKey ? "area c0" : "area rest",
      x: 0,
      y: 2,
      width: Math.max(200 * share, 0.5),
      height: 10,
    }),
  );
  picture.append(draw("path", { class: "chance", d: `M${(200 * chance).toFixed(1)},0v14` }));
  return picture;
}

function importanceView() {
  const found = data.importance[state.by],
    box = $("importance-table");
  box.tHead.replaceChildren();
  box.tBodies[0].replaceChildren();
  $("importance-more").textContent = "";
  if (!found || found.reason) {
    $("importance-note").textContent = found ? `None: ${found.reason}.` : "None was computed for this column.";
    return;
  }
  $("importance-note").textContent =
    `How much of the variance of ${titleOf(byColumn())} each key explains, over ${counted(found.runs, "run")}, whatever the filter. The mark: what a key without effect would have by chance.`;
  box.tHead.append(
    make(
      "tr",
      {},
      ...["Key", "Values", "Share", "", "By chance"].map((text, i) =>
        make("th", { scope: "col", className: [1, 2, 4].includes(i) ? "number" : "" }, text),
      ),
    ),
  );
  for (const [key, values, share, chance] of found.rows) {
    box.tBodies[0].append(
      make(
        "tr",
        {},
        make("th", { scope: "row" }, key),
        make("td", { className: "number" }, values ?? ""),
        make("td", { className: "number" }, percent(share)),
        make("td", {}, bar(share, chance, !REST.includes(key))),
        make("td", { className: "number" }, percent(chance)),
      ),
    );
  }
  $("importance-more").textContent = found.notes.join(" ");
}

const importanceCsv = () => csv([["key", "values", "share", "chance"], ...(data.importance[state.by]?.rows ?? [])]);
