// The pictures of what the table has: curves, scatter, parallel coordinates, and the table of differences.

const MOST_LINES = 60;       // curves at once
const MOST_PATHS = 3000;     // lines of parallel coordinates, evenly by rank
const MOST_AXES = 12;
const MOST_BARS = 500;       // intervals of a scatter
const MOST_DIFFERENT = 8;    // columns of the difference

// -- curves -------------------------------------------------------------------------------------------------------------

const decoded = new Map();
function numbers(text) {
  if (!decoded.has(text)) decoded.set(text, new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
  return decoded.get(text);
}
const starts = (counts) => { let sum = 0; return counts.map((count) => (sum += count) - count); };
const { grid, counts } = data.epochs, start = starts(counts);
const stepStart = data.steps ? starts(data.steps.counts) : [];
const stepMetrics = data.steps ? Object.keys(data.steps.columns) : [];
const isWithin = (metric) => stepMetrics.includes(metric) && !data.metrics.some((m) => m.key === metric);
const elapsed = (run) => (data.epochs.elapsed ? numbers(data.epochs.elapsed).subarray(start[run], start[run] + counts[run]) : null);

// One run's metric: places along the axis (epoch or step, to match seeds by), x and y.
function curve(run, metric, axis) {
  if (isWithin(metric)) {
    const slice = (text) => numbers(text).subarray(stepStart[run], stepStart[run] + data.steps.counts[run]);
    const places = data.steps.of[run] === null ? [] : numbers(data.steps.places[data.steps.of[run]]), per = data.steps.per[run], times = axis === "time" ? elapsed(run) : null;
    const x = Array.from(places, (step) => {
      if (axis === "step") return step;
      const epoch = step / per;
      if (!times) return epoch;
      const before = grid.findLastIndex((e) => e <= epoch && grid.indexOf(e) < times.length);
      const [e0, t0] = before < 0 ? [0, 0] : [grid[before], times[before]], [e1, t1] = before + 1 < times.length ? [grid[before + 1], times[before + 1]] : [e0, t0];
      return e1 > e0 ? t0 + ((epoch - e0) / (e1 - e0)) * (t1 - t0) : t0;
    });
    return { places, x, y: slice(data.steps.columns[metric]) };
  }
  const y = numbers(data.epochs.columns[metric]).subarray(start[run], start[run] + counts[run]), places = grid.slice(0, y.length);
  const per = data.steps?.per[run];
  const x = axis === "time" ? elapsed(run) ?? [] : axis === "step" ? places.map((epoch) => (per ? epoch * per : NaN)) : places;
  return { places, x, y };
}

// A row's line: mean, half of the interval and number of runs at each place.
function meanCurve(row, metric, axis) {
  const found = new Map();
  for (const run of row.runs) {
    const { places, x, y } = curve(run, metric, axis);
    for (let i = 0; i < places.length; i++) {
      if (Number.isNaN(y[i]) || Number.isNaN(x[i])) continue;
      const point = found.get(places[i]);
      if (point) { point.x += x[i]; point.values.push(y[i]); } else found.set(places[i], { x: x[i], values: [y[i]] });
    }
  }
  return [...found].sort(([a], [b]) => a - b).map(([place, { x, values }]) => ({ place, x: x / values.length, ...toPoint(interval(values)) }));
}
const toPoint = ({ mean, half, n }) => ({ y: mean, half, n });

// Exponential moving average, corrected for its start.
function smoothed(values, weight) {
  let sum = 0, mass = 0;
  return values.map((value) => {
    if (missing(value)) return value;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

const metricOf = (key) => data.metrics.find((metric) => metric.key === key) ?? { key, title: `${key} (within epochs)`, axis: key, scale: "linear" };
const AXES = { epoch: "epoch", step: "step", time: "seconds of training" };
const isOn = (word, standard) => (word === "" ? standard : word === "1");
const zoomed = () => { const ends = state.zoom.split("_").map(Number); return state.zoom && ends.length === 4 && ends.every(Number.isFinite) && ends[1] > ends[0] && ends[3] > ends[2] ? ends : null; };

let chart = null; // what the curves' picture shows: frame, lines
function curvesView() {
  if (!data.metrics.length) return;
  const metric = metricOf(state.metric), weight = Math.min(Math.max(Number(state.smooth) || 0, 0), 0.99);
  const all = chosenRows(), drawn = all.slice(0, MOST_LINES), keys = labelKeys(drawn);
  const lines = [];
  for (const row of drawn) {
    const slot = slotOf(row), name = label(row, keys);
    if (state.lines !== "runs") lines.push({ row, slot, name, points: meanCurve(row, state.metric, state.x), band: row.runs.length > 1, single: false });
    if (state.lines !== "mean") for (const run of row.runs.slice(0, MOST_LINES)) {
      const points = meanCurve(new Row([run]), state.metric, state.x);
      lines.push({ row: new Row([run]), slot, name: row.runs.length > 1 ? `${name}, ${seedName(run)}` : name, points, band: false, single: state.lines === "both" });
    }
  }
  for (const line of lines) {
    line.raw = line.points.map((point) => point.y);
    line.y = weight ? smoothed(line.raw, weight) : line.raw;
  }
  const last = Math.max(1, ...lines.map((line) => line.points.at(-1)?.x ?? 1));
  const logx = isOn(state.logx, state.x === "epoch" && last > 10), logy = isOn(state.logy, metric.scale !== "linear");
  const kind = !logy ? "linear" : metric.scale === "accuracy" ? "accuracy" : "log";
  // What diverging runs reached must not squeeze the rest: three times the greatest value of the others is enough.
  const stopped = (line) => line.row.runs.some((run) => columnOf.get("state").at(run) === "diverged");
  const calm = lines.filter((line) => !stopped(line)).flatMap((line) => line.y).filter((y) => !missing(y));
  const roof = metric.scale === "log" && calm.length ? 3 * calm.reduce((a, b) => Math.max(a, b), 0) : Infinity;
  const values = lines.flatMap((line) => line.y.filter((y) => y <= roof));
  const firsts = lines.map((line) => line.points[0]?.x).filter((x) => x > 0);
  const least = logx ? Math.min(...firsts, last) : Math.min(...firsts, state.x === "epoch" ? 1 : 0);
  const zoom = zoomed();
  const ends = zoom ? [zoom.slice(0, 2), zoom.slice(2)] : [[least, last > least ? last : least + 1], around(values, kind)];
  chart = frame($("curves"), { kind: logx ? "log" : "linear", ends: ends[0], title: AXES[state.x], whole: state.x !== "time" }, { kind, ends: ends[1], title: `${metric.title}: ${metric.axis}` });
  const { inside, x, y } = chart;
  const at = (px, py) => `${x.at(px).toFixed(1)},${Math.min(Math.max(y.at(py), -1e4), 1e4).toFixed(1)}`;
  const path = (line, ys, keep) => {
    let text = "", pen = "M";
    line.points.forEach((point, i) => {
      if (missing(ys[i]) || !keep(i)) { pen = "M"; return; }
      text += pen + at(point.x, ys[i]);
      pen = "L";
    });
    return text;
  };
  for (const line of lines) {
    if (!line.band) continue;
    const known = line.points.filter((point) => point.half !== null);
    if (known.length > 1 && !weight) inside.append(draw("polygon", { class: `band c${line.slot % 8}`, points: [...known.map((p) => at(p.x, p.y + p.half)), ...known.toReversed().map((p) => at(p.x, p.y - p.half))].join(" ") }));
  }
  for (const line of lines) {
    const full = Math.max(0, ...line.points.map((point) => point.n)), style = look(line.slot);
    if (weight && lines.length <= 20) inside.append(draw("path", { ...style, class: `${style.class} raw`, d: path(line, line.raw, () => true) }));
    // Where fewer of its runs go on, the mean is drawn thin.
    inside.append(draw("path", { ...style, class: `${style.class} curve${line.single ? " thin" : ""}`, d: path(line, line.y, (i) => line.points[i].n === full) }));
    const fewer = path(line, line.y, (i) => line.points[i].n < full || line.points[i - 1]?.n < full || line.points[i + 1]?.n < full);
    if (line.points.some((point) => point.n < full)) inside.append(draw("path", { ...style, class: `${style.class} thin`, d: fewer }));
    if (line.points.length === 1) inside.append(draw("circle", { class: `dot c${line.slot % 8}`, cx: x.at(line.points[0].x), cy: y.at(line.y[0]), r: 3 }));
    for (const run of line.row.runs) {
      if (columnOf.get("state").at(run) !== "diverged") continue;
      const end = curve(run, state.metric, state.x), i = end.y.length - 1, value = end.y[i];
      const px = x.at(i < 0 ? least : end.x[i]), py = Math.min(Math.max(missing(value) ? (metric.scale === "accuracy" ? chart.box.bottom : chart.box.top) : y.at(value), chart.box.top), chart.box.bottom);
      chart.svg.append(draw("path", { class: `stop c${line.slot % 8}`, d: `M${px - 5},${py - 5}l10,10m0,-10l-10,10` }));
    }
  }
  chart.svg.append(chart.cursor = draw("line", { class: "cursor", y1: chart.box.top, y2: chart.box.bottom }));
  chart.lines = lines;
  chart.places = [...new Set(lines.flatMap((line) => line.points.map((point) => point.place)))].sort((a, b) => a - b);
  const slider = $("at"), fits = chart.places.length ? chart.places.length - 1 : 0;
  slider.max = fits;
  const wanted = state.at === "" ? fits : chart.places.findIndex((place) => place >= Number(state.at));
  slider.value = wanted < 0 ? fits : wanted;
  $("logx").checked = logx;
  $("logy").checked = logy;
  $("zoom-out").disabled = !zoom;
  const notes = [];
  if (all.length > MOST_LINES) notes.push(`The first ${MOST_LINES} of ${all.length} chosen are drawn.`);
  if (!all.length) notes.push("Choose rows in the table to see their curves.");
  if (lines.some((line) => line.band) && !weight) notes.push("Bands: 95 % interval over the runs.");
  if (weight) notes.push(`Smoothed: moving average with weight ${weight}${lines.length <= 20 ? "; faint, what it is made of" : ""}.`);
  if (lines.some((line) => line.points.some((point) => point.n < line.points[0].n))) notes.push("Thin: fewer of the runs go on.");
  if (lines.some(stopped)) notes.push("×: a run diverged.");
  if (state.x === "time" && state.lines !== "runs") notes.push("Times are means of the runs.");
  $("curves-note").textContent = notes.join(" ");
  $("legend").replaceChildren(...lines.filter((line) => !line.single).map((line) => make("li", {}, swatch(line.slot), make("span", { className: "name" }, line.name), make("span", { className: "value" }))));
  pointAt();
}
const seedName = (run) => { const seed = columns.find((column) => column.kind === "seed"); return seed && !seed.constant ? `seed=${short(seed.at(run))}` : nameOf(run); };

// The values at the slider's place; of a line that ended before, its last.
function pointAt() {
  const place = chart.places[Number($("at").value)];
  const named = isWithin(state.metric) ? "step" : "epoch";
  $("at-value").textContent = place === undefined ? "–" : `${named} ${place}`;
  const items = $("legend").children;
  let px = null;
  chart.lines.filter((line) => !line.single).forEach((line, i) => {
    let index = line.points.findLastIndex((point) => point.place <= place);
    const point = line.points[index], value = items[i].querySelector(".value");
    if (!point) { value.textContent = "–"; return; }
    if (point.place === place) px ??= point.x;
    const last = point.place < place ? ` (ended at ${named} ${point.place})` : "";
    value.textContent = format(line.y[index]) + (point.half ? ` ± ${Number(point.half.toPrecision(2))}` : "") + last;
  });
  for (const name of ["x1", "x2"]) chart.cursor.setAttribute(name, px === null ? -9 : chart.x.at(px));
}

function curvesCsv() {
  const lines = chart.lines.flatMap((line) => line.points.map((point, i) => [line.name, point.place, point.x, line.raw[i], line.y[i], point.half, point.n]));
  return csv([["line", isWithin(state.metric) ? "step" : "epoch", state.x, state.metric, "smoothed", "half_of_95_interval", "runs"], ...lines]);
}

function zoomBy(factor, shift = 0, rise = 0) {
  if (!chart) return;
  const pixels = [[chart.x, shift], [chart.y, rise]].flatMap(([scale, move]) => {
    const middle = (scale.from + scale.to) / 2, half = (scale.to - scale.from) / 2;
    return [-1, 1].map((side) => scale.value(middle + move * half + side * half * factor));
  });
  state.zoom = pixels.map((value) => Number(value.toPrecision(5))).join("_");
  show();
}

// -- any column as an axis ----------------------------------------------------------------------------------------------

const axisColumns = () => columns.filter((column) => !column.constant && (column.kind !== "fact" || column.name === "state" || column.name === "tags" || column.numeric));

// How a column's values are placed: numbers by scale, words in order.
function axisOf(column, shown, log) {
  const values = shown.map((row) => row.value(column));
  if (values.every((value) => typeof value === "number" || missing(value))) {
    const there = values.filter((value) => !missing(value));
    if (column.kind === "measure" && shown.length <= MOST_BARS) for (const row of shown) { const { mean, half } = row.stat(column); if (half !== null) there.push(mean - half, mean + half); }
    const low = Math.min(...there.slice(0, 1e5)), high = Math.max(...there.slice(0, 1e5));
    const wide = column.kind !== "measure" ? low > 0 && high / low >= 9.99 : column.scale !== "linear";
    const kind = !isOn(log, wide) ? "linear" : column.scale === "accuracy" ? "accuracy" : low > 0 ? "log" : "linear";
    const swept = column.kind === "measure" ? [] : [...new Set(there)].sort(compare);
    return { column, kind, at: (row) => row.value(column), values: there, words: null, swept: swept.length <= 12 ? swept : [] };
  }
  const words = [...new Set(values.map((value) => value ?? ABSENT))].sort(compare), place = new Map(words.map((word, i) => [word, i]));
  return { column, kind: "linear", at: (row) => place.get(row.value(column) ?? ABSENT), values: [], words, swept: [] };
}
const endsOf = (axis, margin) => (axis.words ? [-0.5, axis.words.length - 0.5] : around(axis.values, axis.kind, margin));

// A colour for each row: steps of a ramp for numbers, the eight colours for words.
function coloring(column, shown) {
  if (!column) return { of: () => "c0", legend: [] };
  const axis = axisOf(column, shown, "");
  if (axis.words) return { of: (row) => `c${axis.at(row) % 8}`, legend: axis.words.slice(0, 16).map((word, i) => [`c${i % 8}`, cut(String(word), 30)]) };
  const scale = makeScale(axis.kind, around(axis.values, axis.kind, 0), [0, 8]);
  const step = (row) => { const value = axis.at(row); return missing(value) ? "none" : `r${Math.min(Math.max(Math.floor(scale.at(value)), 0), 7)}`; };
  return { of: step, legend: axis.values.length ? [["r0", format(scale.value(0))], ...[1, 2, 3, 4, 5, 6].map((i) => [`r${i}`, ""]), ["r7", format(scale.value(8))]] : [] };
}

function colorLegend(id, column, legend) {
  const items = legend.map(([name, text]) => { const sample = draw("svg", { class: "key", viewBox: "0 0 12 12", "aria-hidden": "true" }); sample.append(draw("rect", { class: `area ${name}`, width: 12, height: 12 })); return make("span", {}, sample, text); });
  $(id).replaceChildren(column ? `Colour: ${titleOf(column)} ` : "", make("span", { className: legend[0]?.[0][0] === "r" ? "ramp" : "names" }, ...items));
}

// -- scatter ------------------------------------------------------------------------------------------------------------

let scatter = null;
function scatterView() {
  const choices = axisColumns(), named = (name, standard) => (choices.includes(columnOf.get(name)) ? columnOf.get(name) : standard);
  const numeric = VARYING.filter((column) => column.numeric);
  const x = named(state.sx, numeric[0] ?? VARYING[0] ?? choices[0]), y = named(state.sy, byColumn() ?? choices[0]);
  const color = state.color === "none" ? null : named(state.color, VARYING.find((column) => column !== x) ?? null);
  fill("sx", choices, x); fill("sy", choices, y); fill("color", choices, color, "none");
  const shown = rows, across = x && axisOf(x, shown, state.slogx), up = y && axisOf(y, shown, state.slogy);
  if (!across || !up || !shown.length) {
    scatter = { points: [], about: [] };
    $("scatter").replaceChildren();
    $("scatter-note").textContent = "There are no two runs that differ.";
    return;
  }
  $("slogx").checked = across.kind !== "linear"; $("slogy").checked = up.kind !== "linear";
  const f = frame($("scatter"), { ...across, ends: endsOf(across), title: titleOf(x) }, { ...up, ends: endsOf(up), title: titleOf(y) }, { left: up.words ? 96 : 58 });
  const painted = coloring(color, shown), dots = new Map(), bars = new Map(), chosen = [];
  const nudge = (across.words || across.swept.length) && !up.words && shown.length > 40 ? 18 : 0; // pixels, so that equal ones show
  scatter = { frame: f, points: [] };
  const put = (map, key, text) => map.set(key, (map.get(key) ?? "") + text);
  shown.forEach((row, i) => {
    const [u, v] = [across.at(row), up.at(row)];
    if (missing(u) || missing(v)) return;
    const px = f.x.at(u) + nudge * ((i * 0.618) % 1 - 0.5), py = f.y.at(v), key = painted.of(row);
    put(dots, key, `M${px.toFixed(1)},${py.toFixed(1)}h0`);
    const stat = !up.words && y.kind === "measure" && y.numeric && row.runs.length > 1 ? row.stat(y) : null;
    if (stat?.half && shown.length <= MOST_BARS) put(bars, key, `M${px.toFixed(1)},${f.y.at(v - stat.half).toFixed(1)}V${f.y.at(v + stat.half).toFixed(1)}`);
    if (slotOf(row) !== null) chosen.push([px, py]);
    scatter.points.push({ px, py, row });
  });
  for (const [key, d] of bars) f.inside.append(draw("path", { class: `bar ${key}`, d }));
  for (const [key, d] of dots) f.inside.append(draw("path", { class: `dots ${key}${shown.length > 1000 ? " many" : ""}`, d }));
  for (const [cx, cy] of chosen.slice(0, MOST_CHOSEN)) f.inside.append(draw("circle", { class: "ring", cx, cy, r: 7 }));
  colorLegend("scatter-colors", color, painted.legend);
  scatter.about = [x, y, color].filter(Boolean);
  $("scatter-note").textContent = `${counted(scatter.points.length, state.rows === "runs" ? "run" : "group")}; ringed: chosen in the table. A press on one chooses it.`;
}

function nearest(place) {
  let found = null, least = 20 ** 2;
  for (const point of scatter?.points ?? []) {
    const away = (point.px - place[0]) ** 2 + (point.py - place[1]) ** 2;
    if (away < least) { least = away; found = point; }
  }
  return found?.row ?? null;
}

function scatterCsv() {
  return csv([["row", ...scatter.about.map((column) => column.name)], ...scatter.points.map(({ row }) => [label(row, labelKeys(best)), ...scatter.about.map((column) => row.value(column))])]);
}

// -- parallel coordinates -----------------------------------------------------------------------------------------------

let parallel = null;
function parallelView() {
  const everything = ranked(filtered("")), shown = new Set(), svg = $("parallel");
  const keyOf = (row) => row.first;
  const { width, height } = svg.getBoundingClientRect(), room = Math.min(MOST_AXES, Math.max(Math.floor(width / 80), 3));
  const wanted = shownColumns().filter((c) => c.kind !== "fact" && !c.constant && c !== byColumn()).slice(0, room - 1);
  const axes = [...wanted, byColumn()].filter(Boolean).map((column) => axisOf(column, everything, ""));
  const top = 44, bottom = height - 14;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  if (!axes.length || !everything.length) return;
  const first = axes[0].words ? Math.max(...axes[0].words.slice(0, 200).map((word) => cut(String(word), 10).length)) : 5;
  const left = 14 + 6.5 * first, right = width - 62, gap = axes.length > 1 ? (right - left) / (axes.length - 1) : 0;
  axes.forEach((axis, i) => {
    axis.x = left + i * gap;
    axis.scale = makeScale(axis.kind, endsOf(axis, 0.02), [bottom, top], axis);
  });
  const path = (row) => axes.map((axis, i) => { const value = axis.at(row); return missing(value) ? null : `${i ? "L" : "M"}${axis.x.toFixed(1)},${axis.scale.at(value).toFixed(1)}`; }).reduce((text, part) => (part === null ? text : text + (text ? part.replace("M", "L") : part.replace("L", "M"))), "");
  const some = (all) => { const step = Math.ceil(all.length / MOST_PATHS); return step > 1 ? all.filter((_, i) => i % step === 0) : all; };
  const painted = coloring(byColumn(), everything), lines = new Map();
  const kept = some(rows);
  for (const row of kept) { const key = painted.of(row); lines.set(key, (lines.get(key) ?? "") + path(row)); }
  if (rows.length < everything.length) svg.append(draw("path", { class: "others", d: some(everything).map(path).join("") }));
  const ordered = [...lines].sort(([a], [b]) => (byColumn()?.high ? 1 : -1) * a.localeCompare(b)); // the best on top
  for (const [key, d] of ordered) svg.append(draw("path", { class: `way ${key}${kept.length > 300 ? " many" : ""}`, d }));
  for (const row of chosenRows().slice(0, 40)) if (kept.length <= 2000 || slotOf(row) < 12) svg.append(draw("path", { ...look(slotOf(row)), class: `line chosen c${slotOf(row) % 8}`, d: path(row) }));
  const brushes = conditions(state.filter);
  axes.forEach((axis, i) => {
    svg.append(draw("line", { class: "axis", x1: axis.x, x2: axis.x, y1: top, y2: bottom }));
    const anchor = i === 0 ? "start" : i === axes.length - 1 ? "end" : "middle", at = i === 0 ? 2 : i === axes.length - 1 ? width - 2 : axis.x;
    const fits = Math.max(Math.floor(gap / 7.5), 6);
    svg.append(draw("text", { x: at, y: i % 2 && gap < 110 ? 12 : 28, "text-anchor": anchor }, cut(titleOf(axis.column), gap < 110 ? fits * 2 : fits)));
    for (const tick of axis.scale.ticks(7)) svg.append(draw("text", { class: "tick", x: axis.x + (i === axes.length - 1 ? 6 : -5), y: axis.scale.at(tick) + 4, "text-anchor": i === axes.length - 1 ? "start" : "end" }, cut(axis.scale.text(tick), 10)));
    const mine = brushes.filter((condition) => condition.column === axis.column);
    if (mine.length && !axis.words) {
      let [low, high] = axis.scale.ends;
      for (const c of mine) { if (c.sign[0] === ">") low = Math.max(low, c.values[0]); if (c.sign[0] === "<") high = Math.min(high, c.values[0]); if (c.sign === "=") [low, high] = [Math.min(...c.values), Math.max(...c.values)]; }
      const [a, b] = [axis.scale.at(high), axis.scale.at(low)];
      svg.append(draw("rect", { class: "brush", x: axis.x - 8, width: 16, y: Math.min(a, b) - 2, height: Math.abs(b - a) + 4 }));
    } else if (mine.length) axis.words.forEach((word, k) => { if (mine.every((c) => c.test(word === ABSENT ? null : word))) svg.append(draw("rect", { class: "brush", x: axis.x - 8, width: 16, y: axis.scale.at(k) - 9, height: 18 })); });
  });
  parallel = { axes, top, bottom };
  colorLegend("parallel-colors", byColumn(), painted.legend);
  $("parallel-note").textContent = `Drag along an axis to filter the table by it; a press on the axis ends that.${kept.length < rows.length ? ` ${kept.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} lines are drawn, evenly by rank.` : ""} Its axes are the columns of the table.`;
}

function axisNear(px) {
  const near = parallel?.axes.reduce((a, b) => (Math.abs(a.x - px) < Math.abs(b.x - px) ? a : b));
  return near && Math.abs(near.x - px) < 24 ? near : null;
}

// What an axis's stretch means as conditions of the filter.
function brushed(axis, y0, y1) {
  const name = quoted(axis.column.name), ends = [y0, y1].map(axis.scale.value).sort((a, b) => a - b);
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
  return csv([["row", ...axes.map((axis) => axis.column.name)], ...rows.map((row) => [label(row, labelKeys(best)), ...axes.map((axis) => row.value(axis.column))])]);
}

// -- difference ---------------------------------------------------------------------------------------------------------

const DIFFERENCE_MEASURES = () => MEASURES.filter((column) => column.numeric && !column.constant);

function differenceLines() {
  const shown = chosenRows().slice(0, MOST_DIFFERENT), keys = labelKeys(shown);
  const differing = (column) => new Set(shown.map((row) => JSON.stringify(row.value(column)))).size > 1;
  const lines = { keys: columns.filter((c) => ["key", "seed"].includes(c.kind) && differing(c)), facts: columns.filter((c) => c.kind === "fact" && !["run", "started", "updated"].includes(c.name) && differing(c)), measures: DIFFERENCE_MEASURES() };
  return { shown, keys, lines, same: KEYS.filter((column) => shown.length && !differing(column) && !missing(shown[0].value(column))) };
}

function differenceView() {
  const { shown, keys, lines, same } = differenceLines(), box = $("difference-table");
  if (shown.length < 2) { $("difference-note").textContent = "Choose two or more rows in the table to compare them."; box.tHead.replaceChildren(); box.tBodies[0].replaceChildren(); $("same").replaceChildren(); return; }
  const heads = shown.map((row) => make("th", { scope: "col" }, swatch(slotOf(row)), " ", cut(label(row, keys), 60), make("div", { className: "note" }, state.rows === "runs" ? nameOf(row.first) : counted(row.runs.length, "run"))));
  box.tHead.replaceChildren(make("tr", {}, make("th", { scope: "col" }, "Column"), ...heads));
  const body = [], section = (title) => body.push(make("tr", { className: "section" }, make("th", { scope: "colgroup", colSpan: shown.length + 1 }, title)));
  if (lines.keys.length) section("Configuration: what differs");
  for (const column of lines.keys) body.push(make("tr", {}, make("th", { scope: "row" }, column.name), ...shown.map((row) => cell(row, column))));
  section("Results, and their difference from the first");
  for (const column of lines.measures) {
    const stats = shown.map((row) => row.stat(column)), digits = decimals(stats, column);
    if (stats.every((stat) => missing(stat.mean))) continue;
    body.push(make("tr", {}, make("th", { scope: "row" }, titleOf(column)), ...shown.map((row, i) => {
      const td = make("td", { className: "number" }, withHalf(column, stats[i], digits));
      if (!i || missing(stats[i].mean) || missing(stats[0].mean)) return td;
      const gap = difference(stats[i], stats[0]) ?? { mean: stats[i].mean - stats[0].mean, half: null };
      const clear = gap.half !== null && Math.abs(gap.mean) > gap.half;
      td.append(make("div", { className: clear ? "gap clear" : "gap" }, `${gap.mean > 0 ? "+" : gap.mean < 0 ? "−" : ""}${fixed(Math.abs(gap.mean), digits)}${gap.half === null ? "" : ` ± ${fixed(gap.half, digits)}`}`));
      return td;
    })));
  }
  if (lines.facts.length) section("Recorded: what differs");
  for (const column of lines.facts) body.push(make("tr", {}, make("th", { scope: "row" }, column.name), ...shown.map((row) => cell(row, column))));
  box.tBodies[0].replaceChildren(...body);
  const total = chosenRows().length;
  $("difference-note").textContent = `${total > shown.length ? `The first ${shown.length} of ${total} chosen. ` : ""}Bold: the 95 % interval of that difference alone (Welch) does not include 0.`;
  $("same").replaceChildren(...same.map((column) => make("div", {}, make("dt", {}, column.name), make("dd", {}, short(shown[0].value(column))))));
}

function differenceCsv() {
  const { shown, keys, lines } = differenceLines();
  return csv([["column", ...shown.map((row) => label(row, keys))], ...[...lines.keys, ...lines.measures, ...lines.facts].map((column) => [column.name, ...shown.map((row) => row.value(column))])]);
}

// -- importance ---------------------------------------------------------------------------------------------------------

const REST = ["interactions", "seeds", "interactions and noise"]; // what no key explains alone
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function bar(share, chance, isKey) {
  const picture = draw("svg", { class: "share", viewBox: "0 0 200 14", width: 200, height: 14, "aria-hidden": "true" });
  picture.append(draw("rect", { class: isKey ? "area c0" : "area rest", x: 0, y: 2, width: Math.max(200 * share, 0.5), height: 10 }));
  picture.append(draw("path", { class: "chance", d: `M${(200 * chance).toFixed(1)},0v14` }));
  return picture;
}

function importanceView() {
  const found = data.importance[state.by], box = $("importance-table");
  box.tHead.replaceChildren();
  box.tBodies[0].replaceChildren();
  $("importance-more").textContent = "";
  if (!found || found.reason) { $("importance-note").textContent = found ? `None: ${found.reason}.` : "None was computed for this column."; return; }
  $("importance-note").textContent = `How much of the variance of ${titleOf(byColumn())} each key explains, over ${counted(found.runs, "run")}, whatever the filter. The mark: what a key without effect would have by chance.`;
  box.tHead.append(make("tr", {}, ...["Key", "Values", "Share", "", "By chance"].map((text, i) => make("th", { scope: "col", className: [1, 2, 4].includes(i) ? "number" : "" }, text))));
  for (const [key, values, share, chance] of found.rows) {
    box.tBodies[0].append(make("tr", {}, make("th", { scope: "row" }, key), make("td", { className: "number" }, values ?? ""), make("td", { className: "number" }, percent(share)),
      make("td", {}, bar(share, chance, !REST.includes(key))), make("td", { className: "number" }, percent(chance))));
  }
  $("importance-more").textContent = found.notes.join(" ");
}

const importanceCsv = () => csv([["key", "values", "share", "chance"], ...(data.importance[state.by]?.rows ?? [])]);
