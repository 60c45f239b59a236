// Scales, ticks and the parts that every picture has. A picture is SVG, so that it can be saved as it is seen.

const FLOOR = 0.005; // percent: where 100 % stands on the axis of the error rate

function draw(tag, attributes = {}, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const format = (x) =>
  missing(x)
    ? ABSENT
    : Math.abs(x) >= 1e6 || (x && Math.abs(x) < 1e-4)
      ? x
          .toExponential(2)
          .replace(/\.?0+e/, "e")
          .replace("e+", "e")
      : String(Number(x.toPrecision(4)));

// From a value to its place along an axis, and back; "accuracy" is logarithmic in the error rate.
const TURNS = {
  linear: [(value) => value, (place) => place],
  log: [(value) => Math.log10(Math.max(value, 1e-300)), (place) => 10 ** place],
  accuracy: [(value) => -Math.log10(Math.max(100 - value, FLOOR)), (place) => 100 - 10 ** -place],
};

// A scale from values to pixels, of one of those kinds. ``words`` are its values, if they are texts; ``swept`` those of
// a key, which get the ticks; ``whole``: only integers do.
function makeScale(kind, ends, [from, to], { words = null, swept = [], whole = false } = {}) {
  const [forward, inverse] = TURNS[kind];
  const [low, high] = ends.map(forward),
    width = high - low || 1;
  return {
    kind,
    words,
    from,
    to,
    ends,
    at: (v) => from + ((forward(v) - low) / width) * (to - from),
    value: (pixel) => inverse(low + ((pixel - from) / (to - from)) * width),
    ticks: (count) =>
      words
        ? spaced(
            words.map((_, i) => i),
            count,
          )
        : swept.length
          ? spaced(swept, count)
          : ticks(kind, ends, count).filter((tick) => !whole || Number.isInteger(tick)),
    text: (v) =>
      words
        ? cut(String(words[v] ?? ABSENT), 22)
        : Math.abs(ends[1] - ends[0]) < Math.abs(v) * 1e-3
          ? String(Number(v.toPrecision(8)))
          : format(v),
  };
}

// The ends of a scale around values, with a margin.
function around(values, kind, margin = 0.05) {
  let low = Infinity,
    high = -Infinity;
  for (const value of values) {
    if (missing(value) || !Number.isFinite(value) || (kind === "log" && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = kind === "log" ? [0.1, 1] : [0, 1];
  const turn = TURNS[kind];
  const [a, b] = [turn[0](low), turn[0](high)],
    pad = b - a > Math.abs(a) * 1e-9 ? (b - a) * margin : Math.abs(a) * 0.01 || 1;
  return [turn[1](a - pad), turn[1](b + pad)];
}

// Round accuracies, the roundest first.
const ACCURACIES = [
  90, 99, 99.9, 99.99, 0, 50, 95, 99.5, 99.95, 80, 98, 99.8, 99.98, 97, 99.7, 20, 70, 60, 40, 96, 99.6, 92, 94, 93,
  85, 98.5, 97.5, 99.2, 99.4, 99.3, 98.8, 98.6, 98.4, 98.2,
];
const spaced = (items, count) => items.filter((_, i) => i % Math.max(Math.ceil(items.length / count), 1) === 0);

function ticks(kind, [low, high], count) {
  if (kind === "accuracy") {
    const place = TURNS.accuracy[0],
      room = (place(high) - place(low)) / (count * 1.5),
      found = [];
    for (const v of ACCURACIES)
      if (v >= low && v <= high && found.every((other) => Math.abs(place(other) - place(v)) > room)) found.push(v);
    if (found.length > 2) return found;
  } else if (kind === "log" && low > 0) {
    for (const steps of [[1, 2, 5], [1, 3], [1]]) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        for (const step of steps) {
          const value = Number((step * 10 ** power).toPrecision(3));
          if (value >= low && value <= high) found.push(value);
        }
      if (found.length > 2 && (found.length <= count + 1 || steps.length === 1)) return spaced(found, count);
    }
  }
  const raw = (high - low) / count || 1,
    power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999),
    found = [];
  for (let i = Math.ceil(low / step); i * step <= high && found.length < 50; i++)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

// An empty picture with its axes. ``x`` and ``y`` say kind, ends, words and title.
function frame(svg, x, y, { left = 58, right = 14, top = 26, bottom = 42 } = {}) {
  const { width, height } = svg.getBoundingClientRect();
  const box = { left, right: Math.max(width - right, left + 40), top, bottom: height - bottom, width, height };
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const across = makeScale(x.kind, x.ends, [box.left + 6, box.right - 6], x),
    up = makeScale(y.kind, y.ends, [box.bottom - 4, box.top + 4], y);
  for (const tick of up.ticks(7)) {
    svg.append(draw("line", { class: "grid", x1: box.left, x2: box.right, y1: up.at(tick), y2: up.at(tick) }));
    svg.append(
      draw(
        "text",
        { class: "tick", x: box.left - 6, y: up.at(tick) + 4, "text-anchor": "end" },
        cut(up.text(tick), 9),
      ),
    );
  }
  const room = Math.max(Math.floor((box.right - box.left) / (x.words ? 90 : 62)), 2);
  for (const tick of across.ticks(room)) {
    svg.append(
      draw("line", { class: "grid", x1: across.at(tick), x2: across.at(tick), y1: box.top, y2: box.bottom }),
    );
    svg.append(
      draw(
        "text",
        { class: "tick", x: across.at(tick), y: box.bottom + 16, "text-anchor": "middle" },
        cut(across.text(tick), 14),
      ),
    );
  }
  svg.append(
    draw("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, cut(x.title, 60)),
  );
  svg.append(draw("text", { x: 2, y: 14 }, cut(y.title, Math.floor(width / 7))));
  const clip = draw("clipPath", { id: `${svg.id}-clip` });
  clip.append(draw("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top }));
  const inside = draw("g", { "clip-path": `url(#${svg.id}-clip)` });
  svg.append(clip, inside);
  return { svg, box, x: across, y: up, inside };
}

// Dragging over a picture: ``done`` gets both corners in its pixels; a press without a drag is a click.
function dragging(svg, { start = () => true, done, click = () => {} }) {
  let from = null,
    shade = null;
  const place = (event) => {
    const box = svg.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.button || !start(place(event))) return;
    from = place(event);
    try {
      svg.setPointerCapture(event.pointerId);
    } catch {
      /* of an event that a script made */
    }
  });
  svg.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = place(event);
    if (!shade) svg.append((shade = draw("rect", { class: "brush" })));
    const area =
      svg.id === "parallel"
        ? [from[0] - 9, Math.min(y, from[1]), 18, Math.abs(y - from[1])]
        : [Math.min(x, from[0]), Math.min(y, from[1]), Math.abs(x - from[0]), Math.abs(y - from[1])];
    ["x", "y", "width", "height"].forEach((name, i) => shade.setAttribute(name, area[i]));
  });
  const end = (event) => {
    if (!from) return;
    const [a, b] = [from, place(event)];
    from = null;
    shade?.remove();
    shade = null;
    if (event.type === "pointercancel") return;
    if (Math.abs(a[0] - b[0]) < 5 && Math.abs(a[1] - b[1]) < 5) click(a);
    else done(a, b);
  };
  svg.addEventListener("pointerup", end);
  svg.addEventListener("pointercancel", end);
}

// The picture as a file of its own: what the style sheet says of it becomes attributes.
const LOOKS = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-linecap",
  "opacity",
  "font-size",
  "font-family",
  "fill-opacity",
];
function svgFile(svg) {
  const copy = svg.cloneNode(true),
    { width, height } = svg.getBoundingClientRect();
  const from = [svg, ...svg.querySelectorAll("*")],
    to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    if (["path", "line", "rect", "text", "circle", "polygon"].includes(element.tagName))
      for (const name of LOOKS) to[i].setAttribute(name, style.getPropertyValue(name));
    to[i].removeAttribute("class");
  });
  for (const [name, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height }))
    copy.setAttribute(name, value);
  copy.prepend(draw("rect", { width, height, fill: getComputedStyle(document.body).backgroundColor }));
  return new XMLSerializer().serializeToString(copy);
}
