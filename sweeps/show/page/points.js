// Scatter and parallel coordinates of the table's rows.

const MOST_PATHS = 3000; // lines of parallel coordinates, evenly by rank
const MOST_AXES = 12;
const MOST_BARS = 500; // intervals of a scatter

// -- any column as an axis ----------------------------------------------------------------------------------------------

const axisColumns = () =>
  columns.filter(
    (column) =>
      !column.constant &&
      (column.kind !== "fact" || column.name === "state" || column.name === "tags" || column.numeric),
  );

// How a column's values are placed: numbers by scale, words in order.
function axisOf(column, shown, log) {
  const values = shown.map((row) => row.value(column));
  if (values.every((value) => typeof value === "number" || missing(value))) {
    const there = values.filter((value) => !missing(value));
    if (column.kind === "measure" && shown.length <= MOST_BARS)
      for (const row of shown) {
        const { mean, half } = row.stat(column);
        if (half !== null) there.push(mean - half, mean + half);
      }
    const low = Math.min(...there.slice(0, 1e5)),
      high = Math.max(...there.slice(0, 1e5));
    const wide = column.kind !== "measure" ? low > 0 && high / low >= 9.99 : column.scale !== "linear";
    const kind = !isOn(log, wide) ? "linear" : column.scale === "accuracy" ? "accuracy" : low > 0 ? "log" : "linear";
    const swept = column.kind === "measure" ? [] : [...new Set(there)].sort(compare);
    return {
      column,
      kind,
      at: (row) => row.value(column),
      values: there,
      words: null,
      swept: swept.length <= 12 ? swept : [],
    };
  }
  const words = [...new Set(values.map((value) => value ?? ABSENT))].sort(compare),
    place = new Map(words.map((word, i) => [word, i]));
  return {
    column,
    kind: "linear",
    at: (row) => place.get(row.value(column) ?? ABSENT),
    values: [],
    words,
    swept: [],
  };
}
const endsOf = (axis, margin) =>
  axis.words ? [-0.5, axis.words.length - 0.5] : around(axis.values, axis.kind, margin);

// A colour for each row: steps of a ramp for numbers, the eight colours for words.
function coloring(column, shown) {
  if (!column) return { of: () => "c0", legend: [] };
  const axis = axisOf(column, shown, "");
  if (axis.words)
    return {
      of: (row) => `c${axis.at(row) % 8}`,
      legend: axis.words.slice(0, 16).map((word, i) => [`c${i % 8}`, cut(String(word), 30)]),
    };
  const scale = makeScale(axis.kind, around(axis.values, axis.kind, 0), [0, 8]);
  const step = (row) => {
    const value = axis.at(row);
    return missing(value) ? "none" : `r${Math.min(Math.max(Math.floor(scale.at(value)), 0), 7)}`;
  };
  return {
    of: step,
    legend: axis.values.length
      ? [
          ["r0", format(scale.value(0))],
          ...[1, 2, 3, 4, 5, 6].map((i) => [`r${i}`, ""]),
          ["r7", format(scale.value(8))],
        ]
      : [],
  };
}

function colorLegend(id, column, legend) {
  const items = legend.map(([name, text]) => {
    const sample = draw("svg", { class: "key", viewBox: "0 0 12 12", "aria-hidden": "true" });
    sample.append(draw("rect", { class: `area ${name}`, width: 12, height: 12 }));
    return make("span", {}, sample, text);
  });
  $(id).replaceChildren(
    column ? `Colour: ${titleOf(column)} ` : "",
    make("span", { className: legend[0]?.[0][0] === "r" ? "ramp" : "names" }, ...items),
  );
}

// -- scatter ------------------------------------------------------------------------------------------------------------

let scatter = null;
function scatterView() {
  const choices = axisColumns(),
    named = (name, standard) => (choices.includes(columnOf.get(name)) ? columnOf.get(name) : standard);
  const numeric = VARYING.filter((column) => column.numeric);
  const x = named(state.sx, numeric[0] ?? VARYING[0] ?? choices[0]),
    y = named(state.sy, byColumn() ?? choices[0]);
  const color = state.color === "none" ? null : named(state.color, VARYING.find((column) => column !== x) ?? null);
  fill("sx", choices, x);
  fill("sy", choices, y);
  fill("color", choices, color, "none");
  const shown = rows,
    across = x && axisOf(x, shown, state.slogx),
    up = y && axisOf(y, shown, state.slogy);
  if (!across || !up || !shown.length) {
    scatter = { points: [], about: [] };
    $("scatter").replaceChildren();
    $("scatter-note").textContent = "There are no two runs that differ.";
    return;
  }
  $("slogx").checked = across.kind !== "linear";
  $("slogy").checked = up.kind !== "linear";
  const f = frame(
    $("scatter"),
    { ...across, ends: endsOf(across), title: titleOf(x) },
    { ...up, ends: endsOf(up), title: titleOf(y) },
    { left: up.words ? 96 : 58 },
  );
  const painted = coloring(color, shown),
    dots = new Map(),
    bars = new Map(),
    chosen = [];
  const nudge = (across.words || across.swept.length) && !up.words && shown.length > 15 ? 18 : 0; // pixels, so that equal ones show
  scatter = { frame: f, points: [] };
  const put = (map, key, text) => map.set(key, (map.get(key) ?? "") + text);
  shown.forEach((row, i) => {
    const [u, v] = [across.at(row), up.at(row)];
    if (missing(u) || missing(v)) return;
    const px = f.x.at(u) + nudge * (((i * 0.618) % 1) - 0.5),
      py = f.y.at(v),
      key = painted.of(row);
    put(dots, key, `M${px.toFixed(1)},${py.toFixed(1)}h0`);
    const stat = !up.words && y.kind === "measure" && y.numeric && row.runs.length > 1 ? row.stat(y) : null;
    if (stat?.half && shown.length <= MOST_BARS)
      put(bars, key, `M${px.toFixed(1)},${f.y.at(v - stat.half).toFixed(1)}V${f.y.at(v + stat.half).toFixed(1)}`);
    if (slotOf(row) !== null) chosen.push([px, py]);
    scatter.points.push({ px, py, row });
  });
  for (const [key, d] of bars) f.inside.append(draw("path", { class: `bar ${key}`, d }));
  for (const [key, d] of dots)
    f.inside.append(draw("path", { class: `dots ${key}${shown.length > 1000 ? " many" : ""}`, d }));
  for (const [cx, cy] of chosen.slice(0, MOST_CHOSEN))
    f.inside.append(draw("circle", { class: "ring", cx, cy, r: 7 }));
  colorLegend("scatter-colors", color, painted.legend);
  scatter.about = [x, y, color].filter(Boolean);
  $("scatter-note").textContent =
    `${counted(scatter.points.length, state.rows === "runs" ? "run" : "group")}; ringed: chosen in the table. A press on one chooses it.`;
}

function nearest(place) {
  let found = null,
    least = 20 ** 2;
  for (const point of scatter?.points ?? []) {
    const away = (point.px - place[0]) ** 2 + (point.py - place[1]) ** 2;
    if (away < least) {
      least = away;
      found = point;
    }
  }
  return found?.row ?? null;
}

function scatterCsv() {
  return csv([
    ["row", ...scatter.about.map((column) => column.name)],
    ...scatter.points.map(({ row }) => [
      label(row, labelKeys(best)),
      ...scatter.about.map((column) => row.value(column)),
    ]),
  ]);
}

// -- parallel coordinates -----------------------------------------------------------------------------------------------

let parallel = null;
function parallelView() {
  const everything = ranked(filtered("")),
    shown = new Set(),
    svg = $("parallel");
  const keyOf = (row) => row.first;
  const { width, height } = svg.getBoundingClientRect(),
    room = Math.min(MOST_AXES, Math.max(Math.floor(width / 80), 3));
  const wanted = shownColumns()
    .filter((c) => c.kind !== "fact" && !c.constant && c !== byColumn())
    .slice(0, room - 1);
  const axes = [...wanted, byColumn()].filter(Boolean).map((column) => axisOf(column, everything, ""));
  const top = 44,
    bottom = height - 14;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  if (!axes.length || !everything.length) return;
  const first = axes[0].words
    ? Math.max(...axes[0].words.slice(0, 200).map((word) => cut(String(word), 10).length))
    : 5;
  const left = 14 + 6.5 * first,
    right = width - 62,
    gap = axes.length > 1 ? (right - left) / (axes.length - 1) : 0;
  axes.forEach((axis, i) => {
    axis.x = left + i * gap;
    axis.scale = makeScale(axis.kind, endsOf(axis, 0.02), [bottom, top], axis);
  });
  const path = (row) =>
    axes
      .map((axis, i) => {
        const value = axis.at(row);
        return missing(value) ? null : `${i ? "L" : "M"}${axis.x.toFixed(1)},${axis.scale.at(value).toFixed(1)}`;
      })
      .reduce(
        (text, part) => (part === null ? text : text + (text ? part.replace("M", "L") : part.replace("L", "M"))),
        "",
      );
  const some = (all) => {
    const step = Math.ceil(all.length / MOST_PATHS);
    return step > 1 ? all.filter((_, i) => i % step === 0) : all;
  };
  const painted = coloring(byColumn(), everything),
    lines = new Map();
  const kept = some(rows);
  for (const row of kept) {
    const key = painted.of(row);
    lines.set(key, (lines.get(key) ?? "") + path(row));
  }
  if (rows.length < everything.length)
    svg.append(draw("path", { class: "others", d: some(everything).map(path).join("") }));
  const ordered = [...lines].sort(([a], [b]) => (byColumn()?.high ? 1 : -1) * a.localeCompare(b)); // the best on top
  for (const [key, d] of ordered)
    svg.append(draw("path", { class: `way ${key}${kept.length > 300 ? " many" : ""}`, d }));
  for (const row of chosenRows().slice(0, 40))
    if (kept.length <= 2000 || slotOf(row) < 12)
      svg.append(draw("path", { ...look(slotOf(row)), class: `line chosen c${slotOf(row) % 8}`, d: path(row) }));
  const brushes = conditions(state.filter);
  axes.forEach((axis, i) => {
    svg.append(draw("line", { class: "axis", x1: axis.x, x2: axis.x, y1: top, y2: bottom }));
    const anchor = i === 0 ? "start" : i === axes.length - 1 ? "end" : "middle",
      at = i === 0 ? 2 : i === axes.length - 1 ? width - 2 : axis.x;
    const fits = Math.max(Math.floor(gap / 7.5), 6);
    svg.append(
      draw(
        "text",
        { x: at, y: i % 2 && gap < 110 ? 12 : 28, "text-anchor": anchor },
        cut(titleOf(axis.column), gap < 110 ? fits * 2 : fits),
      ),
    );
    for (const tick of axis.scale.ticks(7))
      svg.append(
        draw(
          "text",
          {
            class: "tick",
            x: axis.x + (i === axes.length - 1 ? 6 : -5),
            y: axis.scale.at(tick) + 4,
            "text-anchor": i === axes.length - 1 ? "start" : "end",
          },
          cut(axis.scale.text(tick), 10),
        ),
      );
    const mine = brushes.filter((condition) => condition.column === axis.column);
    if (mine.length && !axis.words) {
      let [low, high] = axis.scale.ends;
      for (const c of mine) {
        if (c.sign[0] === ">") low = Math.max(low, c.values[0]);
        if (c.sign[0] === "<") high = Math.min(high, c.values[0]);
        if (c.sign === "=") [low, high] = [Math.min(...c.values), Math.max(...c.values)];
      }
      const [a, b] = [axis.scale.at(high), axis.scale.at(low)];
      svg.append(
        draw("rect", {
          class: "brush",
          x: axis.x - 8,
          width: 16,
          y: Math.min(a, b) - 2,
          height: Math.abs(b - a) + 4,
        }),
      );
    } else if (mine.length)
      axis.words.forEach((word, k) => {
        if (mine.every((c) => c.test(word === ABSENT ? null : word)))
          svg.append(draw("rect", { class: "brush", x: axis.x - 8, width: 16, y: axis.scale.at(k) - 9, height: 18 }));
      });
  });
  parallel = { axes, top, bottom };
  colorLegend("parallel-colors", byColumn(), painted.legend);
  $("parallel-note").textContent =
    `Drag along an axis to filter the table by it; a press on the axis ends that.${kept.length < rows.length ? ` ${kept.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} lines are drawn, evenly by rank.` : ""} Its axes are the columns of the table.`;
}

function axisNear(px) {
  const near = parallel?.axes.reduce((a, b) => (Math.abs(a.x - px) < Math.abs(b.x - px) ? a : b));
  return near && Math.abs(near.x - px) < 24 ? near : null;
}

// What an axis's stretch means as conditions of the filter.
function brushed(axis, y0, y1) {
  const name = quoted(axis.column.name),
    ends = [y0, y1].map(axis.scale.value).sort((a, b) => a - b);
  if (axis.words) {
    const words = axis.words.filter((word, i) => i >= ends[0] && i <= ends[1]);
    return words.length ? [`${name}=${words.map((word) => quoted(word === ABSENT ? "" : word)).join(",")}`] : [];
  }
  const [low, high] = ends.map((value) => Number(value.toPrecision(4)));
  return [`${name}>=${low}`, `${name}<=${high}`];
}

function brush(axis, y0, y1) {
  state.filter = withConditions(state.filter, axis.column, y0 === null ? [] : brushed(axis, y0, y1));
  $("filter").value = state.filter;
  state.page = "0";
  change();
}

function parallelCsv() {
  const { axes } = parallel;
  return csv([
    ["row", ...axes.map((axis) => axis.column.name)],
    ...rows.map((row) => [label(row, labelKeys(best)), ...axes.map((axis) => row.value(axis.column))]),
  ]);
}
