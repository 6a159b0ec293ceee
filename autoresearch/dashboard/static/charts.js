// Draws every figure with `data-chart`: its address gives a Vega-Lite spec with its data.
//
// Vega is loaded when the page has been painted, never before. Its expressions are interpreted
// (`ast`), because the page's policy allows no evaluation of text as code.

const NARROW = 640; // pixels below which names of ideas would cover the points
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // figure -> {chart, view}
const root = document.body.dataset.root;

let library = null;
function vegaEmbed() {
  library ??= import(`/static/vega.js?version=${document.body.dataset.vega}`).then(() => window.vegaEmbed);
  return library;
}

/** Draws a chart into a figure, in the place of what was there. */
export async function draw(figure, chart) {
  const embed = await vegaEmbed();
  const plot = figure.querySelector(".plot");
  const before = drawn.get(figure);
  const narrow = plot.clientWidth < NARROW;
  const spec = { ...chart.spec, datasets: chart.data, config: chart[dark.matches ? "dark" : "light"] };
  const made = await embed(place(plot), narrow ? narrowed(spec) : spec, {
    actions: false,
    ast: true,
    renderer: "canvas",
    tooltip: showTip,
    defaultStyle: false,
  });
  before?.made.finalize();
  drawn.set(figure, { chart, made, narrow });
  made.view.addEventListener("click", (event, item) => {
    if (item?.datum && Number.isInteger(item.datum.id)) location.href = `${root}/trial/${item.datum.id}`;
  });
  figure.dataset.drawn = (Number(figure.dataset.drawn) || 0) + 1;
}

/** Where Vega draws: it gives its place a role and a name, and the plot has better ones. */
function place(plot) {
  if (!plot.firstElementChild) {
    plot.append(document.createElement("div"));
    plot.firstElementChild.ariaHidden = "true";
  }
  return plot.firstElementChild;
}

/** Phones have no room for ideas beside points, for long names of bars and for wide legends. */
function narrowed(given) {
  const spec = structuredClone(given);
  if (typeof spec.height === "number") spec.height = Math.min(spec.height, 300);
  const layers = spec.layer ?? [spec];
  if (spec.layer) spec.layer = layers.filter((layer) => !/^(halo|idea)-/.test(layer.name ?? ""));
  for (const { encoding } of layers) {
    if (encoding?.y?.axis?.labelLimit) encoding.y.axis.labelLimit = 110;
    for (const name of ["color", "shape"]) {
      if (encoding?.[name]?.legend) encoding[name].legend.columns = 3;
    }
  }
  return spec;
}

/** Gives a drawn chart other data, by name of the data set. */
export async function feed(figure, data) {
  const found = drawn.get(figure);
  if (!found) return;
  found.chart = { ...found.chart, data };
  for (const [name, rows] of Object.entries(data)) found.made.view.data(name, rows);
  await found.made.view.resize().runAsync();
}

/** Asks for a figure's chart again and draws it. */
export async function refresh(figure) {
  const answer = await fetch(figure.dataset.chart);
  if (!answer.ok) return;
  const chart = await answer.json();
  if (!chart.spec) return;
  const words = figure.querySelector("figcaption p");
  if (words && figure.dataset.summary && figure.dataset.summary !== chart.summary) {
    words.textContent = words.textContent.replace(figure.dataset.summary, chart.summary);
    figure.querySelector(".plot").setAttribute("aria-label", `${chart.title}. ${chart.summary}`);
  }
  figure.dataset.summary = chart.summary;
  await draw(figure, chart);
}

const figures = () => [...document.querySelectorAll("figure[data-chart]")];

/** Those that are drawn already, so that they can be kept as the study is. */
export const drawnFigures = () => figures().filter((figure) => drawn.has(figure));

// What a point says, beside the pointer. Words of agents are text here, never markup.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);

function showTip(handler, event, item, value) {
  if (value === null || value === undefined || value === "") {
    tip.hidden = true;
    return;
  }
  const list = document.createElement("dl");
  const pairs = typeof value === "object" ? Object.entries(value) : [["", value]];
  for (const [name, words] of pairs) {
    if (words === undefined || words === null || words === "" || words === "null") continue;
    const term = document.createElement("dt");
    const said = document.createElement("dd");
    term.textContent = name;
    said.textContent = words;
    list.append(term, said);
  }
  tip.replaceChildren(list);
  tip.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = event.clientX + 14 + width > innerWidth ? event.clientX - 14 - width : event.clientX + 14;
  const top = event.clientY + 14 + height > innerHeight ? event.clientY - 14 - height : event.clientY + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

function redraw() {
  for (const [figure, { chart }] of drawn) draw(figure, chart);
}

dark.addEventListener("change", redraw);
addEventListener("resize", () => {
  for (const [figure, { narrow }] of drawn) {
    if (figure.querySelector(".plot").clientWidth < NARROW !== narrow) return redraw();
  }
});

// What comes near the window is drawn. Two frames: the words are on the screen before that begins.
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    refresh(target);
  }
}, { rootMargin: "300px" });
requestAnimationFrame(() => requestAnimationFrame(() => figures().forEach((f) => near.observe(f))));
