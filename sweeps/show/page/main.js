// What is pressed, typed and dragged, and what follows from it: the state first, then the page from the state.

const VIEWS = {
  curves: { show: curvesView, csv: curvesCsv },
  scatter: { show: scatterView, csv: scatterCsv },
  parallel: { show: parallelView, csv: parallelCsv },
  difference: { show: differenceView, csv: differenceCsv },
  importance: { show: importanceView, csv: importanceCsv },
};
const viewName = () => (state.view in VIEWS ? state.view : "curves");

function show() {
  const name = viewName();
  for (const other of Object.keys(VIEWS)) {
    const tab = $(`tab-${other}`),
      is = other === name;
    tab.setAttribute("aria-selected", String(is));
    tab.tabIndex = is ? 0 : -1;
    $(`view-${other}`).hidden = !is;
  }
  VIEWS[name].show();
  $("save-svg").hidden = !$(name);
  writeAddress();
}

function change() {
  refresh();
  answer();
  table();
  show();
}

// -- controls from the state --------------------------------------------------------------------------------------------

function fill(id, choices, value, none) {
  const select = $(id);
  if (select.childElementCount !== choices.length + (none ? 1 : 0)) {
    select.replaceChildren(
      ...(none ? [make("option", { value: none }, none)] : []),
      ...choices.map((column) => make("option", { value: column.name }, cut(titleOf(column), 50))),
    );
  }
  select.value = value?.name ?? none ?? "";
}

function boxes(id, choices, isOn, set) {
  $(id).replaceChildren(
    ...choices.map((column) => {
      const box = make("input", { type: "checkbox", checked: isOn(column) });
      box.addEventListener("change", () => {
        set(column, box.checked);
        state.page = "0";
        change();
      });
      return make("label", {}, box, ` ${cut(titleOf(column), 50)}`);
    }),
  );
}

function menus() {
  const groupable = columns.filter((column) => ["key", "seed"].includes(column.kind) && !column.constant);
  $("group-menu").hidden = state.rows === "runs" || !groupable.length;
  boxes(
    "group-boxes",
    groupable,
    (column) => groupKeys().includes(column),
    (column, on) => {
      const keys = groupKeys()
        .filter((c) => !c.constant && c !== column)
        .map((c) => c.name);
      if (on) keys.push(column.name);
      const ordered = groupable.map((c) => c.name).filter((name) => keys.includes(name));
      state.group = ordered.join("\n") === VARYING.map((c) => c.name).join("\n") ? null : ordered;
      state.chosen = null;
      menus();
    },
  );
  boxes(
    "column-boxes",
    columns.filter((column) => column.name !== "run"),
    (column) => shownColumns().includes(column),
    (column, on) => {
      const now = shownColumns().filter((c) => c !== column);
      state.cols = (on ? [...now, column] : now).map((c) => c.name);
    },
  );
}

function controls() {
  fill(
    "by",
    MEASURES.filter((column) => column.numeric),
    byColumn(),
  );
  const options = [...data.metrics, ...stepMetrics.filter(isWithin).map((key) => metricOf(key))];
  $("metric").replaceChildren(...options.map((metric) => make("option", { value: metric.key }, metric.title)));
  if (!options.some((metric) => metric.key === state.metric)) state.metric = DEFAULTS.metric;
  if (!(state.x in AXES) || (state.x === "time" && !data.epochs.elapsed) || (state.x === "step" && !data.steps))
    state.x = "epoch";
  for (const [name, there] of [
    ["step", data.steps],
    ["time", data.epochs.elapsed],
  ])
    $("x").querySelector(`[value=${name}]`).disabled = !there;
  for (const id of ["rows", "filter", "metric", "x", "lines", "smooth"]) $(id).value = state[id];
  $("smooth-value").textContent = state.smooth;
  $("only").checked = state.only === "1";
  menus();
}

function restore() {
  readAddress();
  controls();
  change();
}

// -- events -------------------------------------------------------------------------------------------------------------

for (const form of document.querySelectorAll("form"))
  form.addEventListener("submit", (event) => event.preventDefault());

function onChange(id, set, after = change, event = "change") {
  $(id).addEventListener(event, () => {
    set($(id));
    after();
  });
}
const reset = (changes) => Object.assign(state, changes, { page: "0" });
onChange("by", (select) => {
  reset({ by: select.value, sort: "" });
});
onChange("rows", (select) => {
  // The seeds of a chosen group are chosen with it.
  const chosen =
    state.chosen && select.value === "runs"
      ? chosenRows()
          .flatMap((row) => row.runs)
          .slice(0, MOST_CHOSEN)
          .map(nameOf)
      : state.chosen;
  reset({ rows: select.value, cols: null, chosen });
  menus();
});
let typing = 0;
onChange(
  "filter",
  (input) => reset({ filter: input.value }),
  () => {
    clearTimeout(typing);
    typing = setTimeout(change, data.count > 2000 ? 120 : 0);
  },
  "input",
);
onChange("only", (box) => reset({ only: box.checked ? "1" : "" }));
for (const [id, step] of [
  ["previous", -1],
  ["next", 1],
])
  $(id).addEventListener("click", () => {
    state.page = String(Math.max(Number(state.page) + step, 0));
    table();
    writeAddress();
  });
$("choose-best").addEventListener("click", () => {
  reset({ chosen: null, only: "" });
  $("only").checked = false;
  change();
});
$("choose-all").addEventListener("click", () => {
  state.chosen = rows.slice(0, MOST_CHOSEN).map((row) => nameOf(row.first));
  change();
});
$("choose-none").addEventListener("click", () => {
  reset({ chosen: [], only: "" });
  $("only").checked = false;
  change();
});
$("save-table").addEventListener("click", () => save("runs.csv", "text/csv", tableCsv()));
$("save-data").addEventListener("click", () => save(`${viewName()}.csv`, "text/csv", VIEWS[viewName()].csv()));
$("save-svg").addEventListener("click", () => save(`${viewName()}.svg`, "image/svg+xml", svgFile($(viewName()))));

const tabs = Object.keys(VIEWS);
for (const name of tabs) {
  $(`tab-${name}`).addEventListener("click", () => {
    state.view = name;
    show();
  });
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    state.view = tabs[(tabs.indexOf(name) + step + tabs.length) % tabs.length];
    show();
    $(`tab-${state.view}`).focus();
  });
}

onChange("metric", (select) => Object.assign(state, { metric: select.value, logy: "", zoom: "" }), show);
onChange("x", (select) => Object.assign(state, { x: select.value, logx: "", zoom: "" }), show);
onChange(
  "lines",
  (select) => {
    state.lines = select.value;
  },
  show,
);
onChange(
  "smooth",
  (input) => {
    state.smooth = input.value;
    $("smooth-value").textContent = input.value;
  },
  show,
  "input",
);
for (const id of ["logx", "logy"])
  onChange(id, (box) => Object.assign(state, { [id]: box.checked ? "1" : "0", zoom: "" }), show);
for (const id of ["slogx", "slogy"])
  onChange(
    id,
    (box) => {
      state[id] = box.checked ? "1" : "0";
    },
    show,
  );
for (const id of ["sx", "sy", "color"])
  onChange(
    id,
    (select) => {
      state[id] = select.value;
      if (id !== "color") state[`slog${id[1]}`] = "";
    },
    show,
  );
onChange(
  "at",
  () => {
    state.at = chart.places.length - 1 === Number($("at").value) ? "" : String(chart.places[Number($("at").value)]);
  },
  () => {
    pointAt();
    writeAddress();
  },
  "input",
);
$("zoom-in").addEventListener("click", () => zoomBy(0.6));
$("zoom-out").addEventListener("click", () => {
  state.zoom = "";
  show();
});
$("curves").addEventListener("keydown", (event) => {
  const moves = {
    "+": [0.6],
    "=": [0.6],
    "-": [1 / 0.6],
    ArrowLeft: [1, -0.3],
    ArrowRight: [1, 0.3],
    ArrowUp: [1, 0, 0.3],
    ArrowDown: [1, 0, -0.3],
  };
  if (event.key === "0" || event.key === "Escape") {
    state.zoom = "";
    show();
  } else if (event.key in moves) zoomBy(...moves[event.key]);
  else return;
  event.preventDefault();
});
dragging($("curves"), {
  done: (a, b) => {
    const [x, y] = [
      [a[0], b[0]],
      [a[1], b[1]],
    ].map((ends, i) => ends.map(i ? chart.y.value : chart.x.value).sort((p, q) => p - q));
    state.zoom = [...x, ...y].map((value) => Number(value.toPrecision(5))).join("_");
    show();
  },
});
$("curves").addEventListener("dblclick", () => {
  state.zoom = "";
  show();
});
$("curves").addEventListener("pointermove", (event) => {
  const line = chart?.lines.find(
    (line) => line.points.length === Math.max(...chart.lines.map((l) => l.points.length)),
  );
  if (!line?.points.length || event.buttons) return;
  const px = event.clientX - $("curves").getBoundingClientRect().left;
  const near = line.points.reduce((a, b) =>
    Math.abs(chart.x.at(b.x) - px) < Math.abs(chart.x.at(a.x) - px) ? b : a,
  );
  $("at").value = chart.places.indexOf(near.place);
  pointAt();
});
dragging($("scatter"), {
  start: () => true,
  done: () => {},
  click: (place) => {
    const row = nearest(place);
    if (row) {
      choose(row, slotOf(row) === null);
      change();
    }
  },
});
$("scatter").addEventListener("pointermove", (event) => {
  const box = $("scatter").getBoundingClientRect(),
    row = nearest([event.clientX - box.left, event.clientY - box.top]);
  $("scatter-point").textContent = row
    ? `${label(row, labelKeys(best))}: ${scatter.about.map((column) => `${titleOf(column)} ${short(row.value(column))}`).join(", ")}`
    : "";
});
dragging($("parallel"), {
  start: ([px]) => Boolean(axisNear(px)),
  done: (a, b) => {
    const axis = axisNear(a[0]);
    if (axis) brush(axis, a[1], b[1]);
  },
  click: (a) => {
    const axis = axisNear(a[0]);
    if (axis) brush(axis, null, null);
  },
});

// A link to a part of the page keeps the state in the address; one to a state sets it.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (!link) {
    for (const menu of document.querySelectorAll("details.menu[open]"))
      if (!menu.contains(event.target)) menu.open = false;
    return;
  }
  const target = link.getAttribute("href").slice(1);
  event.preventDefault();
  if (target.includes("=")) {
    history.pushState(null, "", `#${target}`);
    restore();
  }
  const part = $(target.includes("=") ? "compare" : target);
  part?.scrollIntoView();
  if (part) {
    part.tabIndex = -1;
    part.focus({ preventScroll: true });
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape")
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
});
addEventListener("hashchange", () => {
  if (location.hash.includes("=")) restore();
});
addEventListener("popstate", restore);

// -- theme ----------------------------------------------------------------------------------------------------------------

const THEMES = ["system", "light", "dark"];
function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    /* a page without storage keeps it until it is closed */
  }
}
{
  let stored = null;
  try {
    stored = localStorage.getItem("theme");
  } catch {
    /* as above */
  }
  let theme = THEMES.includes(stored) ? stored : "system";
  setTheme(theme);
  $("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    setTheme(theme);
  });
}

// -- the tables that are on the page from the start -----------------------------------------------------------------------

function sortValue(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" || isNaN(text) ? text : Number(text);
}
for (const sorted of document.querySelectorAll("table.sortable")) {
  const headings = [...sorted.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = make("button", { type: "button" }, heading.textContent);
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", direction);
      sorted.tBodies[0].append(
        ...order(
          [...sorted.tBodies[0].rows],
          (row) => sortValue(row.cells[column]),
          direction === "ascending" ? 1 : -1,
        ),
      );
    });
  });
}

restore();
{
  let width = innerWidth;
  new ResizeObserver(() => {
    if (innerWidth !== width) {
      width = innerWidth;
      show();
    }
  }).observe(document.body);
}
