// Keeps a page as the study is: listens to events, and asks for the parts that they change.
//
// Events of the ledger have ids. The page begins behind the id that it was made at, and whoever was
// away comes back with the last one it saw: nothing is missed. A page that nobody looks at listens
// to nothing.

import { draw, drawnFigures, feed, refresh } from "/static/charts.js";

const { root } = document.body.dataset;
const byId = (id) => document.getElementById(id);
const connection = byId("connection");
let source = null;
let after = document.body.dataset.head;

/** Calls what was given at most once in so many milliseconds, the last time included. */
function calmly(milliseconds, act) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      act();
    }, milliseconds);
  };
}

function listen() {
  if (source || document.hidden) return;
  source = new EventSource(`${root}/events?after=${encodeURIComponent(after)}`);
  source.onopen = () => say("live", "on");
  source.onerror = () => say("not connected: does autoresearch dashboard still run?", "off");
  on("trial", (trial) => {
    byId("news").textContent = `Trial ${trial.id}: ${trial.status}. ${trial.idea}`;
    refreshTable();
    refreshCharts();
  });
  on("record", () => refreshCharts());
  on("reset", () => location.reload());
  on("problem", ({ message }) => (message ? say(message, "off") : say("live", "on")));
  on("standing", standing);
}

function on(name, act) {
  source.addEventListener(name, (event) => {
    if (event.lastEventId) document.body.dataset.head = after = event.lastEventId;
    act(JSON.parse(event.data));
  });
}

function hush() {
  source?.close();
  source = null;
}

function say(words, state) {
  if (connection.textContent !== words) connection.textContent = words;
  connection.className = `connection ${state}`;
}

// -- parts of the page ---------------------------------------------------------------------------

function standing(now) {
  if (byId("reading")) return location.reload();
  const place = byId("standing");
  if (place && place.dataset.html !== now.html) {
    const focused = document.activeElement?.getAttribute?.("href");
    place.dataset.html = now.html;
    place.innerHTML = now.html; // made by the server's templates, which escape
    if (focused) place.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }
  if (byId("live")) losses(now.chart, now.table);
  const control = byId("control");
  if (control) {
    const may = { pause: now.asked !== "pause", resume: now.asked !== "", stop: now.asked !== "stop" };
    for (const button of control.elements) button.disabled = !now.looping || !may[button.value];
    byId("run-words").textContent = now.running || "Nothing runs.";
  }
}

let begun = false;
async function losses(chart, rows) {
  const figure = byId("live");
  figure.hidden = chart.data.own.length < 2;
  if (figure.hidden) return;
  byId("live-words").textContent = chart.summary;
  byId("live-table").innerHTML = rows; // made by the server's templates, which escape
  if (begun) return feed(figure, chart.data);
  begun = true;
  await draw(figure, chart);
}

async function part(address, place) {
  const answer = await fetch(address);
  if (!answer.ok) return;
  const text = await answer.text();
  const focused = place.contains(document.activeElement) && document.activeElement.getAttribute("href");
  place.innerHTML = text; // made by the server's templates, which escape
  if (focused) [...place.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused)?.focus();
}

const table = byId("table");
let query = new URLSearchParams(location.search);
const showTable = () => part(`${root}/trials?${query}`, table);
const refreshTable = calmly(700, () => table && showTable());
const ofTheStudy = (figure) => !figure.dataset.chart.endsWith("/curve"); // a trial's never changes
const refreshCharts = calmly(1500, () => drawnFigures().filter((f) => f.dataset.chart && ofTheStudy(f)).forEach(refresh));

if (table) {
  const filter = byId("filter");
  const ask = () => {
    query = new URLSearchParams(new FormData(filter));
    history.replaceState(null, "", `?${query}`);
    showTable();
  };
  filter.addEventListener("input", calmly(250, ask));
  filter.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  table.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-page]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    query = new URL(link.href).searchParams;
    history.replaceState(null, "", link.href);
    await showTable();
    byId("trials-title").scrollIntoView();
    (table.querySelector(`nav a[rel=${link.rel || "next"}]`) ?? table.querySelector("nav a"))?.focus({ preventScroll: true });
  });
}

const meters = byId("meters");
if (meters) setInterval(() => document.hidden || part(`${root}/machine/now`, meters), 2000);

document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
addEventListener("pagehide", hush);
addEventListener("pageshow", listen);
listen();
