"use strict";
(() => {
  const document_ = JSON.parse(document.getElementById("document").textContent);
  const specs = new Map(document_.charts.map((chart) => [chart.name, chart]));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const views = new Map();
  const MANY = 1500; // marks beyond which a canvas is faster than SVG

  // Phones have no room for ideas beside points, and for long ones beside bars.
  function fitted(spec) {
    const made = structuredClone(spec);
    if (!narrow.matches) return made;
    const layers = made.layer || [made];
    if (made.layer) made.layer = made.layer.filter((layer) => !/^(halo|idea)-/.test(layer.name || ""));
    for (const layer of layers) {
      const y = layer.encoding && layer.encoding.y;
      if (y && y.axis && y.axis.labelLimit) y.axis.labelLimit = 110;
      for (const name of ["color", "shape"]) {
        const legend = layer.encoding && layer.encoding[name] && layer.encoding[name].legend;
        if (legend) legend.columns = 3;
      }
    }
    return made;
  }

  // What is known of a mark; `clean` escapes what agents wrote.
  function hovered(value, clean) {
    if (typeof value !== "object" || value === null) return clean(String(value));
    const rows = Object.entries(value).filter(([, text]) => text !== null && text !== "" && text !== "null");
    const cells = rows.map(([key, text]) => `<tr><td class="key">${clean(key)}</td><td>${clean(String(text))}</td></tr>`);
    return `<table>${cells.join("")}</table>`;
  }

  async function draw(place) {
    const chart = specs.get(place.dataset.chart);
    if (!chart) return;
    const spec = fitted(chart.spec);
    spec.datasets = Object.fromEntries(chart.data.map((name) => [name, document_.data[name]]));
    const marks = Math.max(...chart.data.map((name) => document_.data[name].length));
    const old = views.get(place);
    if (old) old.finalize();
    const result = await vegaEmbed(place, spec, {
      actions: false,
      ast: true,
      config: document_.config[dark.matches ? "dark" : "light"],
      defaultStyle: false,
      logLevel: 1, // errors; warnings speak of layers that have nothing to draw
      renderer: marks > MANY ? "canvas" : "svg",
      tooltip: { theme: "own", disableDefaultStyle: true, formatTooltip: hovered },
    });
    views.set(place, result);
    result.view.addEventListener("click", (event, item) => {
      if (item && item.datum && Number.isInteger(item.datum.id)) show(item.datum.id);
    });
  }

  function show(id) {
    const row = document.getElementById(`trial-${id}`);
    if (!row) return;
    for (let at = row; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    for (const other of document.querySelectorAll("tr.found")) other.classList.remove("found");
    row.classList.add("found");
    row.scrollIntoView({ block: "center" });
  }

  // A closed table has no place to go to: open it first.
  addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[href^='#trial-']");
    if (!link) return;
    event.preventDefault();
    show(link.getAttribute("href").slice("#trial-".length));
  });
  if (/^#trial-\d+$/.test(location.hash)) show(location.hash.slice("#trial-".length));

  const places = [...document.querySelectorAll("[data-chart]")];
  const seen = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting || seen.has(entry.target)) continue;
      seen.add(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  for (const place of places) watcher.observe(place);
  const again = () => { for (const place of seen) draw(place); };
  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
  addEventListener("beforeprint", () => {
    for (const place of places) if (!seen.has(place)) { seen.add(place); draw(place); }
  });
})();
