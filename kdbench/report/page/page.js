// Sorts and filters tables, draws figures, shows trials, offers files. All text of results is set as text, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a string becomes text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

// Tables

/** The rows of a table but the headings of groups, which only the printed order has. */
function dataRows(table) {
  return [...table.tBodies[0].rows].filter((row) => !row.classList.contains("heading"));
}

function enableSorting(table) {
  const all = [...table.tBodies[0].rows];
  const rows = dataRows(table);
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  for (const [column, head] of heads.entries()) {
    const button = element("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const order = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const wanted = order === undefined ? "ascending" : order;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (wanted) head.setAttribute("aria-sort", wanted);
      table.tBodies[0].append(...(wanted ? sorted(rows, column, wanted, table) : all));
      rearranged(table);
    });
  }
}

/** By the numbers behind the cells where there are any, else by their text; cells without a number come last, or first in a turned table. */
function sorted(rows, column, order, table) {
  const sign = order === "ascending" ? 1 : -1;
  const value = (row) => Number(row.cells[column].dataset.value ?? NaN);
  const numeric = rows.some((row) => !Number.isNaN(value(row)));
  const missing = (row) => (numeric && Number.isNaN(value(row)) ? ("turned" in table.dataset ? -1 : 1) : 0);
  const text = (row) => row.cells[column].textContent;
  const compare = numeric ? (a, b) => value(a) - value(b) : (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
  return [...rows].sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a, b)));
}

function enableFilter(input) {
  const table = byId(input.dataset.filter).querySelector("table");
  const rows = dataRows(table);
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
  const count = document.querySelector(`[data-count="${input.dataset.filter}"]`);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      shown += !row.hidden;
    });
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    rearranged(table);
  });
}

/** Whether rows stand as they were printed: only then may a pair be named in the first of its rows alone. */
function rearranged(table) {
  const changed = table.querySelector("[aria-sort]") || dataRows(table).some((row) => row.hidden);
  table.classList.toggle("rearranged", Boolean(changed));
}

// Figures

const INK = "currentColor";
const CONFIG = {
  background: null,
  font: "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif",
  aria: false, // the figure is one image with a name, and its values stand in a table
  view: { stroke: null },
  axis: {
    labelColor: INK, titleColor: INK, tickColor: INK, domainColor: INK, gridColor: INK, gridOpacity: 0.12,
    labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelLimit: Math.min(240, innerWidth * 0.35),
  },
};

// Asked for more ticks than there are steps between epochs, Vega places them at halves of epochs, whatever `tickMinStep` says
const epochAxis = (points) => {
  const epochs = points.map((point) => point.epoch);
  return { tickCount: Math.min(8, Math.max(1, Math.max(...epochs) - Math.min(...epochs))), tickMinStep: 1, format: "d" };
};

const colour = (method) => `var(--m-${method.colour.slice(1).toLowerCase()}, ${method.colour})`;

const CHARTS = {
  results: { spec: resultsSpec, values: resultsValues },
  gains: { spec: gainsSpec, values: gainsValues },
  curves: { spec: curvesSpec, values: curvesValues },
  cost: { spec: costSpec, values: costValues },
};

function shownMethods(data) {
  const on = new Set([...document.querySelectorAll("#method-switches input:checked")].map((box) => box.value));
  return data.methods.filter((method) => on.has(method.label));
}

/** Scales and encodings that give each method its look. */
function looks(methods) {
  const domain = methods.map((method) => method.label);
  const by = (range) => ({ field: "Method", type: "nominal", legend: null, scale: { domain, range } });
  return {
    color: by(methods.map(colour)),
    shape: by(methods.map((method) => method.shape)),
    strokeDash: by(methods.map((method) => (method.dashes.length ? method.dashes : [1, 0]))),
  };
}

const fixed = (value, data) => value.toFixed(data.metric.decimals);
const fixedOfCurve = (value, data) => value.toFixed(data.metric.curve_decimals);
const signed = (value, data) => `${value < 0 ? "−" : "+"}${fixed(Math.abs(value), data)}`;

/** The rows of one kind of one pair, of the methods that are switched on. */
const chosen = (rows, methods) => rows.filter((row) => methods.some((method) => method.label === row.method));

function resultsSpec(data, pair, methods) {
  const rows = chosen(pair.results, methods);
  const gains = new Map(pair.gains.map((row) => [row.method, `${signed(row.gain, data)}, 95 % interval ${between(row.seeds, data)}`]));
  const gain = (row) => (gains.has(row.method) ? { Gain: gains.get(row.method) } : {});
  const about = (row) => ({ Method: row.method, Mean: `${fixed(row.mean, data)}, n = ${row.n}`, ...gain(row) });
  const seeds = rows.flatMap((row) =>
    row.seeds.map(([seed, value]) => ({ ...about(row), Seed: `${seed}`, Value: fixed(value, data), value })));
  const means = rows.map((row) => ({ ...about(row), mean: row.mean }));
  const { color } = looks(methods);
  const y = { field: "Method", type: "nominal", sort: null, title: null, axis: { grid: false, ticks: false, domain: false, labelPadding: 8 } };
  const x = (field) => ({ field, type: "quantitative", scale: { zero: false }, title: data.metric.title, axis: { tickCount: 10 } });
  const layers = [
    { data: { values: seeds }, mark: { type: "point", filled: true, size: 38, opacity: 0.65, yOffset: 8, tooltip: { content: "data" } },
      encoding: { y, x: x("value"), color } },
    { data: { values: means }, mark: { type: "tick", thickness: 3, size: 16, tooltip: { content: "data" } },
      encoding: { y, x: x("mean"), color } },
  ];
  if (pair.teacher !== null) {
    const teacher = { values: [{ teacher: pair.teacher, text: `teacher ${fixed(pair.teacher, data)}` }] };
    layers.unshift(
      { data: teacher, mark: { type: "rule", strokeDash: [4, 3], opacity: 0.6, color: INK }, encoding: { x: x("teacher") } },
      { data: teacher, mark: { type: "text", y: -7, fontSize: 11, color: INK }, encoding: { x: x("teacher"), text: { field: "text" } } });
  }
  return { height: 30 * Math.max(1, rows.length), padding: { top: 8 }, layer: layers };
}

/** What stands between the two ends of an interval, or that there is none. */
const between = (bounds, data) => (bounds ? `${signed(bounds[0], data)} to ${signed(bounds[1], data)}` : "—");

function gainsSpec(data, pair, methods) {
  const values = chosen(pair.gains, methods).map((row) => ({
    Method: row.method, Gain: `${signed(row.gain, data)}, n = ${row.n}`, "New seeds": between(row.seeds, data), gain: row.gain,
    ...(row.images && { "New seeds and images": between(row.images, data) }),
    low: row.seeds?.[0], high: row.seeds?.[1], wide_low: row.images?.[0], wide_high: row.images?.[1],
  }));
  const { color } = looks(methods);
  const y = { field: "Method", type: "nominal", sort: null, title: null, axis: { grid: false, ticks: false, domain: false, labelPadding: 8 } };
  const x = (field) => ({ field, type: "quantitative", title: data.metric.gain_title, axis: { tickCount: 10 } });
  const rule = (low, high, strokeWidth) => { // of those that have the interval, if any
    const known = values.filter((value) => value[low] !== undefined);
    return known.length ? [{ data: { values: known }, mark: { type: "rule", strokeWidth }, encoding: { y, x: x(low), x2: { field: high }, color } }] : [];
  };
  const layers = [
    { data: { values: [{ zero: 0 }] }, mark: { type: "rule", color: INK, opacity: 0.6 }, encoding: { x: x("zero") } },
    ...rule("wide_low", "wide_high", 1.2),
    ...rule("low", "high", 4),
    { mark: { type: "point", filled: true, size: 60, opacity: 1, tooltip: { content: "data" } }, encoding: { y, x: x("gain"), color } },
  ];
  return { height: 30 * Math.max(1, values.length), data: { values }, layer: layers };
}

function curvesSpec(data, pair, methods) {
  const points = chosen(pair.curves, methods).flatMap((row) => row.epochs.map((epoch, i) => ({
    Method: row.method, epoch, mean: row.mean[i], low: row.mean[i] - row.std[i], high: row.mean[i] + row.std[i], std: row.std[i], n: row.n[i],
    Epoch: `${epoch}`, Mean: fixedOfCurve(row.mean[i], data), "Standard deviation": row.n[i] > 1 ? `${fixedOfCurve(row.std[i], data)}, n = ${row.n[i]}` : "n = 1",
  })));
  const { color, strokeDash } = looks(methods);
  const x = { field: "epoch", type: "quantitative", title: "epoch", axis: epochAxis(points) };
  const scale = data.metric.log && points.every((point) => point.mean > 0) ? { type: "log" } : { zero: false };
  const y = { field: "mean", type: "quantitative", scale: { ...scale, nice: false }, title: data.metric.curve_title + (scale.type ? ", logarithmic" : "") };
  const band = methods.length <= 8 && points.every((point) => scale.type !== "log" || point.low > 0);
  const layers = [
    { mark: { type: "line", strokeWidth: 1.7 }, encoding: { x, y, color, strokeDash } },
    { mark: { type: "point", filled: true, size: 55, tooltip: { content: "data" } },
      params: [{ name: "near", select: { type: "point", nearest: true, on: "pointerover", clear: "pointerout" } }],
      encoding: { x, y, color, opacity: { condition: { param: "near", empty: false, value: 1 }, value: 0 } } },
  ];
  if (band) layers.unshift({ mark: { type: "area", opacity: 0.13 }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color } });
  return { height: 340, data: { values: points }, layer: layers };
}

function costSpec(data, pair, methods) {
  const { unit, points, front } = pair.cost;
  const values = chosen(points, methods).map((point) => ({
    ...point, Method: point.method, Time: `${point.cost.toPrecision(3)} ${unit}`, Mean: fixed(point.value, data), "Standard deviation": fixed(point.std, data),
    low: point.value - point.std, high: point.value + point.std, first: front.includes(point.method) ? 0 : 1,
  }));
  const { color, shape } = looks(methods);
  const x = { field: "cost", type: "quantitative", scale: { zero: false, padding: 20 }, title: `training of one student (${unit}), left is cheaper`, axis: { tickCount: 8 } };
  const y = (field) => ({ field, type: "quantitative", scale: { zero: false, padding: 12 }, title: data.metric.title });
  const layers = [
    { mark: { type: "rule", opacity: 0.45 }, encoding: { x, y: y("low"), y2: { field: "high" }, color } },
    { name: "methods", mark: { type: "point", filled: true, size: 80, opacity: 1, tooltip: { content: "data" } }, encoding: { x, y: y("value"), color, shape } },
  ];
  const ends = front.map((label) => values.find((value) => value.method === label));
  if (ends.every(Boolean)) { // with one of them switched off it would not be the front
    layers.unshift({ data: { values: ends }, mark: { type: "line", interpolate: "step-after", color: INK, opacity: 0.6, strokeDash: [4, 3], strokeWidth: 1 },
      encoding: { x, y: y("value") } });
  }
  return { height: 340, data: { values }, layer: layers, usermeta: { embedOptions: { patch: [{ op: "add", path: "/marks/-", value: NAMES }] } } };
}

/** A mark of Vega, which Vega-Lite cannot say: names beside the points where they have room, those of the front first. */
const NAMES = {
  type: "text", from: { data: "methods_marks" }, interactive: false,
  encode: { enter: { text: { field: "datum.Method" }, fill: { field: "fill" }, fontSize: { value: 11 } } },
  transform: [{
    type: "label", size: { signal: "[width, height]" }, avoidMarks: ["methods_marks"], sort: { field: "datum.datum.first" },
    anchor: ["top-right", "right", "bottom-right", "top-left", "left", "bottom-left", "top", "bottom"], offset: [3],
  }],
};

// The same values, for those who read them rather than look at them

function valuesTable(heads, rows) {
  const line = (cells, tag) => element("tr", {}, ...cells.map((cell, i) =>
    element(i === 0 || tag === "th" ? "th" : "td", { class: i ? "number" : "", ...(i === 0 || tag === "th" ? { scope: tag === "th" ? "col" : "row" } : {}) }, cell)));
  return element("table", {}, element("thead", {}, line(heads, "th")), element("tbody", {}, ...rows.map((cells) => line(cells, "td"))));
}

function resultsValues(data, pair, methods) {
  const rows = chosen(pair.results, methods);
  const seeds = [...new Set(rows.flatMap((row) => row.seeds.map(([seed]) => seed)))];
  const cells = rows.map((row) => {
    const found = new Map(row.seeds);
    return [row.method, fixed(row.mean, data), `${row.n}`, ...seeds.map((seed) => (found.has(seed) ? fixed(found.get(seed), data) : "—"))];
  });
  return valuesTable(["Method", "Mean", "n", ...seeds.map((seed) => `Seed ${seed}`)], cells);
}

function gainsValues(data, pair, methods) {
  const cells = chosen(pair.gains, methods).map((row) => [row.method, signed(row.gain, data), between(row.seeds, data), between(row.images, data), `${row.n}`]);
  return valuesTable(["Method", "Gain", "95 % interval, new seeds", "95 % interval, new seeds and images", "n"], cells);
}

function curvesValues(data, pair, methods) {
  const rows = chosen(pair.curves, methods);
  const epochs = [...new Set(rows.flatMap((row) => row.epochs))].sort((a, b) => a - b);
  const some = epochs.filter((_, i) => i === epochs.length - 1 || i % Math.ceil(epochs.length / 10) === 0);
  const cells = rows.map((row) => [row.method, ...some.map((epoch) => (row.epochs.includes(epoch) ? fixedOfCurve(row.mean[row.epochs.indexOf(epoch)], data) : "—"))]);
  return valuesTable(["Method", ...some.map((epoch) => `Epoch ${epoch}`)], cells);
}

function costValues(data, pair, methods) {
  const cells = chosen(pair.cost.points, methods).map((row) => [row.method, row.cost.toPrecision(3), fixed(row.value, data), fixed(row.std, data)]);
  return valuesTable(["Method", `Time (${pair.cost.unit})`, data.metric.title, "Standard deviation"], cells);
}

function showTooltip(event, value) {
  const tooltip = byId("tooltip");
  tooltip.hidden = !value;
  if (!value) return;
  const names = ["Method", "Seed", "Value", "Epoch", "Time", "Mean", "Standard deviation", "Gain", "New seeds", "New seeds and images"];
  const list = element("dl");
  for (const name of names) if (name in value) list.append(element("dt", {}, name), element("dd", {}, `${value[name]}`));
  tooltip.replaceChildren(list);
  const { width, height } = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tooltip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 8))}px`;
}

/** Draw a Vega-Lite specification as SVG, without `eval`, which the page's policy forbids. */
async function draw(chart, spec, name) {
  // Vega takes the values that a tooltip shows from the datum as they are, so that the handler sees all of it.
  const tooltip = (_handler, event, item, value) => showTooltip(event, value && item.datum.datum ? item.datum.datum : value && item.datum);
  const { view } = await vegaEmbed(chart, { width: "container", autosize: { type: "fit-x", contains: "padding" }, config: CONFIG, ...spec }, {
    mode: "vega-lite", ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip,
  });
  const svg = chart.querySelector("svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", name);
  for (const group of svg.children) group.setAttribute("aria-hidden", "true");
  return view;
}

async function drawFigures(data) {
  const pair = data.pairs[Number(byId("pair").value)];
  const methods = shownMethods(data);
  for (const [name, { spec, values }] of Object.entries(CHARTS)) {
    const figure = byId(`figure-${name}`);
    if (!figure) continue;
    const title = figure.querySelector("h3").textContent;
    const details = figure.querySelector("details.values");
    const many = methods.length === 1 ? "one method" : `${methods.length} methods`;
    const chart = figure.querySelector(".chart");
    details.hidden = !methods.length;
    if (methods.length) {
      await draw(chart, spec(data, pair, methods), `${title}. ${pair.name}, ${many}.`);
      details.querySelector(".scroll").replaceChildren(values(data, pair, methods));
    } else {
      chart.replaceChildren(element("p", { class: "muted" }, "No method is switched on."));
    }
  }
}

function swatch(method) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [key, value] of Object.entries({ x1: 0, x2: 32, y1: 6, y2: 6, stroke: colour(method), "stroke-width": 2.5, "stroke-dasharray": method.dashes.join(" ") })) line.setAttribute(key, value);
  svg.setAttribute("viewBox", "0 0 32 12");
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  return svg;
}

function enableFigures(data) {
  const select = byId("pair");
  const switches = byId("method-switches");
  select.append(...data.pairs.map((pair, i) => element("option", { value: i }, pair.name)));
  select.parentElement.hidden = data.pairs.length < 2;
  for (const method of data.methods) {
    switches.append(element("label", {}, element("input", { type: "checkbox", value: method.label, checked: "" }), swatch(method), method.label));
  }
  for (const [text, on] of [["all", true], ["none", false]]) {
    const button = element("button", { type: "button", class: "plain" }, text);
    button.addEventListener("click", () => {
      for (const box of switches.querySelectorAll("input")) box.checked = on;
      drawFigures(data);
    });
    switches.append(button);
  }
  byId("controls").hidden = false;
  byId("controls").addEventListener("change", () => drawFigures(data));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  return drawFigures(data);
}

// Trials

function trialCurves(data, id) {
  const curves = data.trial_curves[id];
  if (!curves) return null;
  const kinds = Object.keys(curves).filter((key) => key !== "epoch");
  const values = kinds.flatMap((kind) => curves.epoch.map((epoch, i) => ({ epoch, value: curves[kind][i], Method: kind })).filter((point) => point.value !== null));
  const x = { field: "epoch", type: "quantitative", title: "epoch", axis: epochAxis(values) };
  const y = { field: "value", type: "quantitative", title: "error (%)", scale: { zero: false } };
  const style = { field: "Method", type: "nominal", title: null, legend: { orient: "top", labelColor: INK, labelFontSize: 12, symbolType: "stroke", symbolSize: 500, symbolStrokeColor: INK, symbolStrokeWidth: 1.6 } };
  return { height: 220, data: { values }, mark: { type: "line", color: INK, strokeWidth: 1.6 }, encoding: { x, y, strokeDash: style } };
}

function showTrial(data, id) {
  const { columns, rows } = data.trials;
  const facts = element("dl", { class: "facts" });
  for (const [i, [name, meaning]] of columns.entries()) {
    const value = rows[id][i];
    if (value !== null) facts.append(element("dt", { title: meaning }, name), element("dd", {}, `${value}`));
  }
  const body = byId("trial-body");
  body.replaceChildren();
  const spec = trialCurves(data, id);
  const chart = element("div", { class: "chart" });
  if (spec) body.append(element("h3", {}, "Training"), chart);
  body.append(element("h3", {}, "Record"), facts);
  if (data.specs[id]) body.append(element("h3", {}, "Specification"), element("pre", { tabindex: "0" }, JSON.stringify(data.specs[id], null, 2)));
  byId("trial-title").textContent = data.trial_titles[id];
  byId("trial").showModal();
  if (spec) draw(chart, spec, `Error against epoch of ${data.trial_titles[id]}`);
}

// Files

function download(name, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function start() {
  for (const table of document.querySelectorAll("table")) enableSorting(table);
  for (const input of document.querySelectorAll("input[data-filter]")) enableFilter(input);
  for (const tools of document.querySelectorAll("[data-tools]")) tools.hidden = false;
  const data = await unpacked("data");
  for (const button of document.querySelectorAll("[data-file]")) {
    button.addEventListener("click", () => download(button.dataset.file, data.files[button.dataset.file]));
  }
  for (const button of document.querySelectorAll("[data-trial]")) {
    button.addEventListener("click", () => showTrial(data, button.dataset.trial));
  }
  byId("trial").querySelector(".close").addEventListener("click", () => byId("trial").close());
  if (byId("figures")) await enableFigures(data);
  document.documentElement.dataset.ready = "yes";
}

start();
