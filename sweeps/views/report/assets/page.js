// The report page: reads the JSON in #data and builds tables, plots and cards. Text goes in by textContent alone.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b2a300"]; // Okabe and Ito 2008
const DASHES = ["solid", "dash", "dot", "dashdot"];
const runCell = new Map(data.cells.flatMap((cell, place) => cell.runs.map((run) => [run, place])));
const runs = new Map(data.runs.map((run) => [run.id, run]));
const colour = (place) => COLOURS[place % COLOURS.length];
const dash = (place) => DASHES[Math.floor(place / COLOURS.length) % DASHES.length];
const short = (number) => (number === null || number === undefined ? "" : Number(number).toPrecision(3).replace(/\.?0+$/, "").replace(/^(-?)0\./, "$1."));
const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value, text })));
}

// --- plots ----------------------------------------------------------------------------------------------------------
const plots = new Map(); // id -> what draws it, to draw again when the colour scheme changes
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function plot(id, traces, layout = {}, click = null) {
  plots.set(id, () => plot(id, traces, layout, click));
  const ink = style("--ink"), line = style("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 13 }, hoverlabel: { namelength: -1 },
    margin: { t: 20, r: 10, b: 45, l: 55 }, legend: { orientation: "h", y: -0.22 }, ...layout,
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
  const box = byId(id);
  Plotly.react(box, traces, base, { responsive: true, displayModeBar: false });
  box.querySelectorAll("svg").forEach((svg) => svg.setAttribute("aria-hidden", "true")); // the table behind it is read
  if (click && !box.dataset.clicks) {
    box.dataset.clicks = "1";
    box.on("plotly_click", (event) => click(event.points[0]));
  }
}

function asTable(id, header, rows) {
  const place = byId(id);
  place.replaceChildren(element("summary", { text: "The numbers as a table" }), plainTable(header, rows));
}

function plainTable(header, rows) {
  const head = element("tr", {}, ...header.map((text) => element("th", { scope: "col", text })));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", { text: cell ?? "" }))));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table" }, table);
}

// --- comparison -----------------------------------------------------------------------------------------------------
const sorting = { column: null, down: false };
const hidden = new Set();

const COMPARE = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };

// What a cell has under a name as people shorten it: "experts" for model.experts, "loss" for val loss (of several the shortest).
function valueNamed(place, name) {
  const ends = (full) => full.toLowerCase().split(/[\s.[\]]+/).includes(name) || full.toLowerCase() === name;
  const path = data.parameters.find(ends);
  if (path !== undefined) return data.cells[place].values[path];
  const [column] = data.columns.filter(ends).sort((a, b) => a.length - b.length);
  return column === undefined ? undefined : data.rows[place][data.columns.indexOf(column)]?.mean ?? null;
}

function matches(place, word) {
  const parts = word.match(/^([^<>=]+)(<=|>=|<|>|=)(.+)$/);
  const value = parts ? valueNamed(place, parts[1]) : undefined;
  if (value === undefined) return data.cells[place].label.toLowerCase().includes(word);
  const number = Number(parts[3]);
  if (typeof value === "number" && !Number.isNaN(number)) return COMPARE[parts[2]](value, number);
  return parts[2] === "=" && String(value).toLowerCase() === parts[3];
}

function comparisonRows() {
  const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const places = data.cells.map((_, place) => place).filter((place) => wanted.every((word) => matches(place, word)));
  const key = (place) => {
    if (sorting.column < data.parameters.length) return Object.values(data.cells[place].values)[sorting.column];
    if (sorting.column === data.parameters.length) return data.cells[place].runs.length;
    return data.rows[place][sorting.column - data.parameters.length - 1]?.mean ?? -Infinity;
  };
  if (sorting.column !== null) {
    places.sort((a, b) => (key(a) > key(b) ? 1 : key(a) < key(b) ? -1 : a - b) * (sorting.down ? -1 : 1));
  }
  return places;
}

function drawComparison() {
  const names = [...data.parameters, "n", ...data.columns];
  const shown = names.map((_, place) => place).filter((place) => !hidden.has(names[place]));
  const head = shown.map((place) => {
    const on = sorting.column === place;
    const button = element("button", { type: "button", text: names[place] + (on ? (sorting.down ? " ↓" : " ↑") : ""), onclick: () => {
      sorting.down = on ? !sorting.down : false;
      sorting.column = place;
      drawComparison();
    } });
    return element("th", { scope: "col", "aria-sort": on ? (sorting.down ? "descending" : "ascending") : "none" }, button);
  });
  const body = comparisonRows().map((place) => {
    const cell = data.cells[place], done = cell.runs.length;
    const texts = [
      ...data.parameters.map((path) => String(cell.values[path])),
      done === cell.planned ? String(done) : `${done} of ${cell.planned} (incomplete)`,
      ...data.rows[place].map((number) => (number ? short(number.mean) + (number.sd === null ? "" : ` ± ${short(number.sd)}`) : "")),
    ];
    return element("tr", done === cell.planned ? {} : { class: "incomplete" }, ...shown.map((column) => element("td", { text: texts[column] })));
  });
  byId("comparison-table").replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

function chooseColumns() {
  const boxes = [...data.parameters, "n", ...data.columns].map((name) => {
    const box = element("input", { type: "checkbox", checked: "", onchange: () => {
      if (box.checked) hidden.delete(name); else hidden.add(name);
      drawComparison();
    } });
    return element("label", {}, box, ` ${name}`);
  });
  byId("columns").append(...boxes);
}

function drawParallel() {
  if (data.parameters.length < 3 || !byId("parallel")) return;
  const axis = (label, values) => {
    const numbers = values.every((value) => typeof value === "number");
    const names = [...new Set(values.map(String))];
    return numbers ? { label, values } : { label, values: values.map((value) => names.indexOf(String(value))), tickvals: names.map((_, at) => at), ticktext: names };
  };
  const places = data.cells.map((_, place) => place).filter((place) => data.cells[place].runs.length);
  const metric = Number(byId("parallel-column").value);
  const values = places.map((place) => data.rows[place][metric]?.mean ?? null);
  const dimensions = data.parameters.map((path) => axis(path.split(".").pop(), places.map((place) => data.cells[place].values[path])));
  plot("parallel", [{ type: "parcoords", line: { color: values, colorscale: "Viridis", showscale: true }, dimensions: [...dimensions, axis(data.columns[metric], values)] }], { margin: { t: 50, l: 60, r: 60, b: 20 } });
}

function drawImportance() {
  const found = data.importance;
  if (!found?.shares.length) return;
  const names = [...found.columns, "by chance"], shares = [...found.shares, found.chance];
  const traces = found.parameters.map((name, at) => ({ type: "bar", orientation: "h", name, y: names, x: shares.map((row) => row[at]), marker: { color: name === "seed" ? "#9a9a9a" : colour(at) }, hovertemplate: "%{y}: %{x:.2f}<extra>%{fullData.name}</extra>" }));
  plot("importance-plot", traces, { barmode: "stack", xaxis: { title: { text: "share of variance" }, range: [0, 1] }, yaxis: { autorange: "reversed", type: "category" }, margin: { t: 10, r: 10, b: 45, l: 120 } });
  asTable("importance-table", ["number", ...found.parameters], names.map((name, at) => [name, ...shares[at].map(short)]));
}

// --- training -------------------------------------------------------------------------------------------------------

function metricKeys() {
  const keys = new Set(Object.values(data.history).flatMap((run) => Object.keys(run.metrics)));
  const first = data.first;
  return [...first.filter((key) => keys.has(key)), ...[...keys].filter((key) => !first.includes(key)).sort()];
}

function seedBand(runIds, key) {
  const byEpoch = new Map();
  for (const id of runIds) {
    const { epochs, metrics } = data.history[id];
    (metrics[key] ?? []).forEach((value, at) => {
      if (value !== null) byEpoch.set(epochs[at], [...(byEpoch.get(epochs[at]) ?? []), value]);
    });
  }
  const epochs = [...byEpoch.keys()].sort((a, b) => a - b);
  const mean = epochs.map((epoch) => byEpoch.get(epoch).reduce((sum, value) => sum + value, 0) / byEpoch.get(epoch).length);
  const sd = epochs.map((epoch, at) => {
    const values = byEpoch.get(epoch);
    return values.length < 2 ? 0 : Math.sqrt(values.reduce((sum, value) => sum + (value - mean[at]) ** 2, 0) / (values.length - 1));
  });
  return { epochs, mean, sd };
}

function drawTraining() {
  const key = byId("metric").value, traces = [], rows = [];
  data.cells.forEach((cell, place) => {
    const { epochs, mean, sd } = seedBand(cell.runs, key);
    if (!epochs.length) return;
    const common = { x: epochs, legendgroup: cell.label, mode: "lines" };
    if (cell.runs.length > 1) {
      traces.push({ ...common, y: mean.map((value, at) => value - sd[at]), line: { width: 0 }, hoverinfo: "skip", showlegend: false });
      traces.push({ ...common, y: mean.map((value, at) => value + sd[at]), line: { width: 0 }, fill: "tonexty", fillcolor: colour(place) + "33", hoverinfo: "skip", showlegend: false });
    }
    const spread = sd.map((value) => (cell.runs.length > 1 ? ` ± ${short(value)}` : ""));
    traces.push({ ...common, y: mean, name: cell.label, text: spread, hovertemplate: `%{y:.4g}%{text}<extra>%{fullData.name}</extra>`, line: { color: colour(place), dash: dash(place), width: 2 } });
    const chance = data.chance[key] && seedBand(cell.runs, data.chance[key]);
    if (chance?.epochs.length) traces.push({ ...common, x: chance.epochs, y: chance.mean, name: `${cell.label}, chance`, line: { color: colour(place), dash: "dot", width: 1 }, showlegend: false });
    epochs.forEach((epoch, at) => rows.push([cell.label, epoch, short(mean[at]), short(sd[at])]));
  });
  plot("curves", traces, { hovermode: "x unified", xaxis: { title: { text: "epochs trained" } }, yaxis: { title: { text: key } } });
  asTable("curves-table", ["cell", "epoch", "mean", "sd"], rows);
}

function runName(id) {
  const run = runs.get(id);
  return `${data.cells[runCell.get(id)].label}, seed ${run.seed} (${id})`;
}

function drawRouting() {
  const id = byId("routing-run").value, found = data.routing[id];
  const slider = byId("epoch");
  slider.max = String(found.epochs.length - 1);
  if (Number(slider.value) > found.epochs.length - 1) slider.value = slider.max;
  const at = Number(slider.value), epoch = found.epochs[at];
  byId("epoch-shown").textContent = `epoch ${epoch}`;
  slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
  const heat = found.heatmap[at], experts = heat[0].map((_, place) => `expert ${place}`);
  const layout = { margin: { t: 10, r: 10, b: 60, l: 90 }, yaxis: { autorange: "reversed", type: "category" }, xaxis: { type: "category" } };
  plot("heatmap", [{ type: "heatmap", z: heat, x: experts, y: found.classes, zmin: 0, zmax: 1, colorscale: "Viridis", hovertemplate: "%{y} → %{x}: %{z:.2f}<extra></extra>" }], layout);
  plot("coactivation", [{ type: "heatmap", z: found.coactivation[at], x: experts, y: experts, zmin: 0, colorscale: "Cividis", hovertemplate: "%{y} with %{x}: %{z:.3f}<extra></extra>" }], layout);
  asTable("heatmap-table", ["class", ...experts], heat.map((row, place) => [found.classes[place], ...row.map(short)]));
}

// --- experts --------------------------------------------------------------------------------------------------------
const cardId = (card) => `expert-${card.run}-${card.expert}`;

function clusterOf(card) {
  const map = data.maps.find((one) => one.images === card.images);
  return map?.points.find((point) => point.run === card.run && point.expert === card.expert)?.cluster;
}

function drawMap() {
  const map = data.maps[Number(byId("map-images")?.value ?? 0)];
  if (!map) return;
  byId("map-said").textContent = map.said;
  const clusters = [...new Set(map.points.map((point) => point.cluster))];
  const traces = clusters.map((cluster, place) => {
    const points = map.points.filter((point) => point.cluster === cluster);
    return {
      type: "scatter", mode: "markers", name: cluster === "" || cluster === null ? "no cluster" : `cluster ${cluster}`,
      x: points.map((point) => point.x), y: points.map((point) => point.y), customdata: points.map((point) => [point.run, point.expert]),
      text: points.map((point) => `expert ${point.expert} of ${runName(point.run)}`), hovertemplate: "%{text}<extra></extra>",
      marker: { size: 11, color: colour(place), symbol: place % 12, line: { width: 1, color: style("--page") } },
    };
  });
  plot("map-plot", traces, { hovermode: "closest", xaxis: { title: { text: "dimension 1" } }, yaxis: { title: { text: "dimension 2" }, scaleanchor: "x" }, legend: { orientation: "h", y: -0.32 } }, (point) => show(...point.customdata));
  if (!byId("map-plot").dataset.hovers) {
    byId("map-plot").dataset.hovers = "1";
    byId("map-plot").on("plotly_hover", (event) => hovered(...event.points[0].customdata));
  }
  asTable("map-table", ["run", "expert", "cluster", "x", "y"], map.points.map((point) => [runName(point.run), point.expert, point.cluster, short(point.x), short(point.y)]));
}

function hovered(run, expert) {
  const images = data.maps[Number(byId("map-images").value)].images;
  const own = data.experts.filter((one) => one.run === run && one.expert === expert);
  const card = own.find((one) => one.images === images) ?? own[0];
  byId("map-hover").replaceChildren(...(card ? [element("p", { class: "caption", text: `expert ${expert} of ${runName(run)} responds most to` }), strip(card.exciting.readout ?? [])] : []));
}

function show(run, expert) {
  const images = data.maps[Number(byId("map-images")?.value ?? 0)]?.images;
  byId("card-run").value = run;
  if (data.experts.some((card) => card.run === run && card.images === images)) byId("card-images").value = images;
  drawCards();
  const card = byId(`expert-${run}-${expert}`);
  card?.classList.add("chosen");
  card?.scrollIntoView({ block: "center" });
  card?.focus();
}

function strip(keys) {
  const pictures = keys.map((key) => element("img", { src: data.thumbnails[key], alt: key.split("/").pop(), title: key }));
  return element("div", { class: "strip" }, ...pictures);
}

function tuned(name, found) {
  if (!found) return [];
  const dimensions = found.dimensions.map(([dimension, weight]) => `${dimension} ${short(weight)}`).join(", ");
  const strength = found.r2 === null ? "no r2" : `r2 ${short(found.r2)}${found.sd === null || found.sd === undefined ? "" : ` ± ${short(found.sd)}`}${found.p === null ? "" : `, p ${short(found.p)}`}`;
  return [element("p", {}, element("b", { text: `${name}: ` }), dimensions ? `${dimensions} (${strength})` : `nothing (${strength})`)];
}

function cardOf(card) {
  const cluster = clusterOf(card), parts = [element("h3", { text: `Expert ${card.expert}` + (cluster === undefined || cluster === "" ? "" : `, cluster ${cluster}`) })];
  for (const [score, name] of [["readout", "Responds most to"], ["gate", "Is sent most decidedly"]]) {
    if (card.exciting[score]?.length) parts.push(element("p", { text: name }), strip(card.exciting[score]));
  }
  parts.push(...tuned("Gate is tuned to", card.tuning.gate), ...tuned("Readout is tuned to", card.tuning.readout));
  if (card.classes.length) parts.push(element("p", {}, element("b", { text: "Gets: " }), card.classes.map(([name, share]) => `${Math.round(100 * share)} % of ${name}`).join(", ")));
  const alive = Object.entries(card.animacy).filter(([, [index]]) => index !== null);
  if (alive.length) parts.push(element("p", {}, element("b", { text: "Animacy: " }), alive.map(([kind, [index, p]]) => `${kind} ${index > 0 ? "+" : ""}${short(index)}${p === null ? "" : ` (p ${short(p)})`}`).join(", ")));
  const [r, low, high] = card.coupling;
  if (r !== undefined && r !== null) parts.push(element("p", {}, element("b", { text: "Gate and readout: " }), `r ${short(r)}${low === null ? "" : ` [${short(low)}, ${short(high)}]`}`));
  return element("li", { class: "card", id: cardId(card), tabindex: "-1" }, ...parts);
}

function drawCards() {
  const run = byId("card-run").value, images = byId("card-images").value;
  byId("cards").replaceChildren(...data.experts.filter((card) => card.run === run && card.images === images).map(cardOf));
}

// --- the page -------------------------------------------------------------------------------------------------------
function theme() {
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const draw = () => {
    byId("theme").textContent = dark() ? "Light page" : "Dark page";
    for (const again of [...plots.values()]) again();
  };
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

if (byId("comparison-table")) {
  chooseColumns();
  byId("filter").addEventListener("input", drawComparison);
  drawComparison();
  if (byId("parallel-column")) {
    fill(byId("parallel-column"), data.columns.map((name, place) => [String(place), name]));
    byId("parallel-column").value = String(Math.max(0, data.columns.indexOf("val loss")));
    byId("parallel-column").addEventListener("change", drawParallel);
  }
  drawParallel();
  drawImportance();
}
if (byId("curves")) {
  fill(byId("metric"), metricKeys().map((key) => [key, key]));
  byId("metric").addEventListener("change", drawTraining);
  drawTraining();
}
if (byId("heatmap")) {
  fill(byId("routing-run"), Object.keys(data.routing).map((id) => [id, runName(id)]));
  byId("epoch").value = "999";
  byId("routing-run").addEventListener("change", drawRouting);
  byId("epoch").addEventListener("input", drawRouting);
  drawRouting();
  byId("epoch").value = byId("epoch").max;
  drawRouting();
}
if (byId("map-plot")) {
  fill(byId("map-images"), data.maps.map((map, place) => [String(place), map.images]));
  byId("map-images").addEventListener("change", drawMap);
  drawMap();
}
if (byId("cards")) {
  fill(byId("card-run"), [...new Set(data.experts.map((card) => card.run))].map((id) => [id, runName(id)]));
  fill(byId("card-images"), [...new Set(data.experts.map((card) => card.images))].map((name) => [name, name]));
  byId("card-run").addEventListener("change", drawCards);
  byId("card-images").addEventListener("change", drawCards);
  drawCards();
}
theme();
document.documentElement.dataset.ready = "yes";
