// The curves of the chosen rows.

const MOST_LINES = 60; // at once

const decoded = new Map();
function numbers(text) {
  if (!decoded.has(text))
    decoded.set(text, new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
  return decoded.get(text);
}
const starts = (counts) => {
  let sum = 0;
  return counts.map((count) => (sum += count) - count);
};
const { grid, counts } = data.epochs,
  start = starts(counts);
const stepStart = data.steps ? starts(data.steps.counts) : [];
const stepMetrics = data.steps ? Object.keys(data.steps.columns) : [];
const isWithin = (metric) => stepMetrics.includes(metric) && !data.metrics.some((m) => m.key === metric);
const elapsed = (run) =>
  data.epochs.elapsed ? numbers(data.epochs.elapsed).subarray(start[run], start[run] + counts[run]) : null;

// One run's metric: places along the axis (epoch or step, to match seeds by), x and y.
function curve(run, metric, axis) {
  if (isWithin(metric)) {
    const slice = (text) => numbers(text).subarray(stepStart[run], stepStart[run] + data.steps.counts[run]);
    const places = data.steps.of[run] === null ? [] : numbers(data.steps.places[data.steps.of[run]]),
      per = data.steps.per[run],
      times = axis === "time" ? elapsed(run) : null;
    const x = Array.from(places, (step) => {
      if (axis === "step") return step;
      const epoch = step / per;
      if (!times) return epoch;
      const before = grid.findLastIndex((e) => e <= epoch && grid.indexOf(e) < times.length);
      const [e0, t0] = before < 0 ? [0, 0] : [grid[before], times[before]],
        [e1, t1] = before + 1 < times.length ? [grid[before + 1], times[before + 1]] : [e0, t0];
      return e1 > e0 ? t0 + ((epoch - e0) / (e1 - e0)) * (t1 - t0) : t0;
    });
    return { places, x, y: slice(data.steps.columns[metric]) };
  }
  const y = numbers(data.epochs.columns[metric]).subarray(start[run], start[run] + counts[run]),
    places = grid.slice(0, y.length);
  const per = data.steps?.per[run];
  const x =
    axis === "time"
      ? (elapsed(run) ?? [])
      : axis === "step"
        ? places.map((epoch) => (per ? epoch * per : NaN))
        : places;
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
      if (point) {
        point.x += x[i];
        point.values.push(y[i]);
      } else found.set(places[i], { x: x[i], values: [y[i]] });
    }
  }
  return [...found]
    .sort(([a], [b]) => a - b)
    .map(([place, { x, values }]) => ({ place, x: x / values.length, ...toPoint(interval(values)) }));
}
const toPoint = ({ mean, half, n }) => ({ y: mean, half, n });

// Exponential moving average, corrected for its start.
function smoothed(values, weight) {
  let sum = 0,
    mass = 0;
  return values.map((value) => {
    if (missing(value)) return value;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

const metricOf = (key) =>
  data.metrics.find((metric) => metric.key === key) ?? {
    key,
    title: `${key} (within epochs)`,
    axis: key,
    scale: "linear",
  };
const AXES = { epoch: "epoch", step: "step", time: "seconds of training" };
const isOn = (word, standard) => (word === "" ? standard : word === "1");
const zoomed = () => {
  const ends = state.zoom.split("_").map(Number);
  return state.zoom && ends.length === 4 && ends.every(Number.isFinite) && ends[1] > ends[0] && ends[3] > ends[2]
    ? ends
    : null;
};

const hasDiverged = (run) => columnOf.get("state").at(run) === "diverged";
const smoothing = () => Math.min(Math.max(Number(state.smooth) || 0, 0), 0.99);
const MOST_RAW = 20; // lines, beyond which what was smoothed is not drawn behind them

// A line for each row, or for each of its runs, or both.
function linesOf(drawn) {
  const keys = labelKeys(drawn),
    lines = [],
    weight = smoothing();
  const add = (row, slot, name, single) => {
    const points = meanCurve(row, state.metric, state.x),
      raw = points.map((point) => point.y);
    const most = points.reduce((most, point) => Math.max(most, point.n), 0);
    lines.push({ row, slot, name, single, points, raw, most, y: weight ? smoothed(raw, weight) : raw });
  };
  for (const row of drawn) {
    const slot = slotOf(row),
      name = label(row, keys);
    if (state.lines !== "runs") add(row, slot, name, false);
    if (state.lines === "mean") continue;
    for (const run of row.runs.slice(0, MOST_LINES)) {
      add(new Row([run]), slot, row.runs.length > 1 ? `${name}, ${seedName(run)}` : name, state.lines === "both");
    }
  }
  return lines;
}

// Kinds and ends of both axes, around the lines or as they were zoomed.
function axesOf(lines, metric) {
  const xs = lines.flatMap((line) => [line.points[0]?.x, line.points.at(-1)?.x]).filter((x) => x >= 0);
  const last = Math.max(1, ...xs),
    logx = isOn(state.logx, state.x === "epoch" && last > 10);
  const first = logx ? Math.min(...xs.filter((x) => x > 0), last) : Math.min(...xs, state.x === "epoch" ? 1 : 0);
  const kind = !isOn(state.logy, metric.scale !== "linear")
    ? "linear"
    : metric.scale === "accuracy"
      ? "accuracy"
      : "log";
  // What diverging runs reached must not squeeze the rest: three times the greatest value of the others is enough.
  const calm = lines.filter((line) => !line.row.runs.some(hasDiverged)).flatMap((line) => line.y);
  const roof = metric.scale === "log" && calm.length ? 3 * calm.reduce((most, y) => Math.max(most, y), 0) : Infinity;
  const values = lines.flatMap((line) => line.y.filter((y) => y <= roof)),
    zoom = zoomed();
  return [
    {
      kind: logx ? "log" : "linear",
      ends: zoom?.slice(0, 2) ?? [first, last > first ? last : first + 1],
      title: AXES[state.x],
      whole: state.x !== "time",
    },
    { kind, ends: zoom?.slice(2) ?? around(values, kind), title: `${metric.title}: ${metric.axis}` },
  ];
}

const placeIn = ({ x, y }, px, py) => `${x.at(px).toFixed(1)},${Math.min(Math.max(y.at(py), -1e4), 1e4).toFixed(1)}`;

// The path of those of a line's values that are kept.
function pathOf(line, values, keep) {
  let text = "",
    pen = "M";
  line.points.forEach((point, i) => {
    const there = !missing(values[i]) && keep(i);
    if (there) text += pen + placeIn(chart, point.x, values[i]);
    pen = there ? "L" : "M";
  });
  return text;
}

function drawBand(line) {
  const known = line.points.filter((point) => point.half !== null);
  if (known.length < 2) return;
  const upper = known.map((p) => placeIn(chart, p.x, p.y + p.half)),
    lower = known.map((p) => placeIn(chart, p.x, p.y - p.half));
  chart.inside.append(
    draw("polygon", { class: `band c${line.slot % 8}`, points: [...upper, ...lower.reverse()].join(" ") }),
  );
}

function drawLine(line, isRawDrawn) {
  const { points, most } = line,
    style = look(line.slot);
  const add = (kind, d) => chart.inside.append(draw("path", { ...style, class: `${style.class} ${kind}`, d }));
  if (isRawDrawn)
    add(
      "raw",
      pathOf(line, line.raw, () => true),
    );
  add(
    line.single ? "curve thin" : "curve",
    pathOf(line, line.y, (i) => points[i].n === most),
  );
  // Where fewer of its runs go on, the mean is drawn thin.
  const fewer = (i) => points[i]?.n < most;
  if (points.some((_, i) => fewer(i)))
    add(
      "thin",
      pathOf(line, line.y, (i) => fewer(i - 1) || fewer(i) || fewer(i + 1)),
    );
  if (points.length === 1) {
    chart.inside.append(
      draw("circle", {
        class: `dot c${line.slot % 8}`,
        cx: chart.x.at(points[0].x),
        cy: chart.y.at(line.y[0]),
        r: 3,
      }),
    );
  }
}

// A cross where a run diverged; without a value there, at the worse edge.
function drawStop(run, slot, metric) {
  const { x, y } = curve(run, state.metric, state.x),
    { box } = chart,
    last = y.length - 1;
  const px = last < 0 ? box.left + 6 : chart.x.at(x[last]),
    edge = metric.scale === "accuracy" ? box.bottom : box.top;
  const py = missing(y[last]) ? edge : Math.min(Math.max(chart.y.at(y[last]), box.top), box.bottom);
  chart.svg.append(draw("path", { class: `stop c${slot % 8}`, d: `M${px - 5},${py - 5}l10,10m0,-10l-10,10` }));
}

function curveNotes(lines, count) {
  const weight = smoothing(),
    notes = [];
  if (count > MOST_LINES) notes.push(`The first ${MOST_LINES} of ${count} chosen are drawn.`);
  if (!count) notes.push("Choose rows in the table to see their curves.");
  if (!weight && lines.some((line) => line.most > 1)) notes.push("Bands: 95 % interval over the runs.");
  if (weight)
    notes.push(
      `Smoothed: moving average with weight ${weight}${lines.length <= MOST_RAW ? "; faint, what it is made of" : ""}.`,
    );
  if (lines.some((line) => line.points.some((point) => point.n < line.most)))
    notes.push("Thin: fewer of the runs go on.");
  if (lines.some((line) => line.row.runs.some(hasDiverged))) notes.push("×: a run diverged.");
  if (state.x === "time" && state.lines !== "runs") notes.push("Times are means of the runs.");
  return notes.join(" ");
}

let chart = null; // what the curves' picture shows: its frame, lines, and the places that have values
function curvesView() {
  if (!data.metrics.length) return;
  const metric = metricOf(state.metric),
    all = chosenRows(),
    lines = linesOf(all.slice(0, MOST_LINES));
  const [across, up] = axesOf(lines, metric);
  chart = { ...frame($("curves"), across, up), lines };
  if (!smoothing()) lines.forEach(drawBand);
  for (const line of lines) {
    drawLine(line, smoothing() > 0 && lines.length <= MOST_RAW);
    for (const run of line.row.runs) if (hasDiverged(run)) drawStop(run, line.slot, metric);
  }
  chart.svg.append((chart.cursor = draw("line", { class: "cursor", y1: chart.box.top, y2: chart.box.bottom })));
  chart.places = [...new Set(lines.flatMap((line) => line.points.map((point) => point.place)))].sort((a, b) => a - b);
  const last = Math.max(chart.places.length - 1, 0);
  const wanted = state.at === "" ? last : chart.places.findIndex((place) => place >= Number(state.at));
  $("at").max = last;
  $("at").value = wanted < 0 ? last : wanted;
  $("logx").checked = across.kind === "log";
  $("logy").checked = up.kind !== "linear";
  $("zoom-out").disabled = !zoomed();
  $("curves-note").textContent = curveNotes(lines, all.length);
  const named = lines.filter((line) => !line.single);
  $("legend").replaceChildren(
    ...named.map((line) =>
      make(
        "li",
        {},
        swatch(line.slot),
        make("span", { className: "name" }, line.name),
        make("span", { className: "value" }),
      ),
    ),
  );
  pointAt();
}
const seedName = (run) => {
  const seed = columns.find((column) => column.kind === "seed");
  return seed && !seed.constant ? `seed=${short(seed.at(run))}` : nameOf(run);
};

// The values at the slider's place; of a line that ended before, its last.
function pointAt() {
  const place = chart.places[Number($("at").value)];
  const named = isWithin(state.metric) ? "step" : "epoch";
  $("at-value").textContent = place === undefined ? "–" : `${named} ${place}`;
  const items = $("legend").children;
  let px = null;
  chart.lines
    .filter((line) => !line.single)
    .forEach((line, i) => {
      let index = line.points.findLastIndex((point) => point.place <= place);
      const point = line.points[index],
        value = items[i].querySelector(".value");
      if (!point) {
        value.textContent = "–";
        return;
      }
      if (point.place === place) px ??= point.x;
      const last = point.place < place ? ` (ended at ${named} ${point.place})` : "";
      value.textContent =
        format(line.y[index]) + (point.half ? ` ± ${Number(point.half.toPrecision(2))}` : "") + last;
    });
  for (const name of ["x1", "x2"]) chart.cursor.setAttribute(name, px === null ? -9 : chart.x.at(px));
}

function curvesCsv() {
  const lines = chart.lines.flatMap((line) =>
    line.points.map((point, i) => [line.name, point.place, point.x, line.raw[i], line.y[i], point.half, point.n]),
  );
  return csv([
    [
      "line",
      isWithin(state.metric) ? "step" : "epoch",
      state.x,
      state.metric,
      "smoothed",
      "half_of_95_interval",
      "runs",
    ],
    ...lines,
  ]);
}

function zoomBy(factor, shift = 0, rise = 0) {
  if (!chart) return;
  const pixels = [
    [chart.x, shift],
    [chart.y, rise],
  ].flatMap(([scale, move]) => {
    const middle = (scale.from + scale.to) / 2,
      half = (scale.to - scale.from) / 2;
    return [-1, 1].map((side) => scale.value(middle + move * half + side * half * factor));
  });
  state.zoom = pixels.map((value) => Number(value.toPrecision(5))).join("_");
  show();
}
