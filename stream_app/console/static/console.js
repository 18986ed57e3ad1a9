"use strict";
// Everything is text (textContent): what customers and items are called is never taken for markup.
const POLL_MS = 1000;
const KEPT = 120;
const WINDOW = 10; // seconds that rates and freshness are taken over
const TELL_S = 60;
const seen = [];
let toldAt = 0;
let paused = false;
const by = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A cell is a text, or a share with its bar.
function filled(element, cell) {
  const { text, share } = cell?.text === undefined ? { text: `${cell}` } : cell;
  const bar = share == null ? [] : [make("meter", { value: share, "aria-hidden": "true" })];
  if (element.textContent !== text) element.replaceChildren(...bar, text);
  return element;
}

const row = (cells) => make("tr", {}, ...cells.map((cell, k) => filled(k ? make("td") : make("th", { scope: "row" }), cell)));

// Only cells that say something new are touched: who reads a table stays where they are.
function rows(id, lines, nothing) {
  const table = by(id);
  const body = table.tBodies[0];
  const told = JSON.stringify(lines);
  if (table.told === told) return;
  table.told = told;
  if (!lines.length) {
    body.replaceChildren(make("tr", {}, make("td", { colspan: table.tHead.rows[0].cells.length }, nothing)));
    return;
  }
  lines.forEach((cells, k) => {
    const old = body.rows[k];
    if (old?.cells.length !== cells.length || old.cells[0].tagName !== "TH") {
      if (old) old.replaceWith(row(cells));
      else body.append(row(cells));
    } else cells.forEach((cell, c) => filled(old.cells[c], cell));
  });
  while (body.rows.length > lines.length) body.deleteRow(-1);
}

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
const applied = (sample) => Object.values(sample.records).reduce((sum, count) => sum + count, 0);

function quantile(share, edges, counts) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return "–";
  let left = share * total;
  for (let k = 0; k < counts.length; k++) {
    left -= counts[k];
    if (left <= 0) {
      if (k >= edges.length) return `> ${edges[edges.length - 1]} s`;
      return edges[k] < 1 ? `≤ ${Math.round(edges[k] * 1000)} ms` : `≤ ${edges[k]} s`;
    }
  }
  return "–";
}

const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
const share = (value, interval) => (value == null ? "–" : `${percent(value)} (${(interval ?? []).map(percent).join(" … ")})`);

const part = (some, all) => (some == null || !all ? "–" : { text: percent(some / all), share: some / all });
const empty = ([low, high]) => low <= -1 && high >= 1;
const difference = ({ difference: value, interval }) => (value == null ? "–" : empty(interval) ? `${percent(value)} (too few customers to tell)` : share(value, interval));

const CAUSES = {
  duplicate: "seen before, by its event_id",
  bot: "more events a minute, or a day, than a person makes",
  refused: "of erased customers, or without consent to analytics",
  overtaken: "a time-out that the customer was faster than",
  ignored: "well-formed, but means nothing to a journey",
};
const LATE = "event happened more than a minute before its record; taken in all the same";

function drawn() {
  const rates = seen.slice(1).map((sample, k) => Math.max(0, (applied(sample) - applied(seen[k])) / (sample.at - seen[k].at)));
  const most = Math.max(1, ...rates);
  const wide = Math.max(30, rates.length); // from half a minute on, two minutes in the end
  const points = rates.map((rate, k) => `${(600 * (k + wide - rates.length)) / (wide - 1)},${58 - (56 * rate) / most}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  by("spark").replaceChildren(line);
  by("spark").setAttribute("aria-label", `Events a second, last ${rates.length} seconds; most: ${number(Math.max(0, ...rates))}`);
}

function show(now) {
  seen.push(now);
  if (seen.length > KEPT) seen.shift();
  const then = seen[Math.max(0, seen.length - 1 - WINDOW)];
  const span = now.at - then.at;
  by("rate").textContent = span ? number(Math.max(0, (applied(now) - applied(then)) / span)) : "–";
  by("lists").textContent = span ? number((now.lists - then.lists) / span) : "–";
  const { edges_s: edges, counts } = now.freshness;
  let fresh = counts.map((count, k) => count - then.freshness.counts[k]);
  if (!fresh.some((count) => count)) fresh = counts; // quiet: what is known since the start
  by("p50").textContent = quantile(0.5, edges, fresh);
  by("p99").textContent = quantile(0.99, edges, fresh);
  const behind = (part) => Math.max(0, (part.end ?? part.done) - part.done);
  by("lag").textContent = number(now.partitions.reduce((sum, part) => sum + behind(part), 0));
  by("known").textContent = number(now.sizes.items);
  rows("partitions", now.partitions.map((p) => [p.topic, p.partition, p.done, p.end ?? "–", behind(p)]), "none is assigned yet");
  rows("funnel", now.funnel.map((s) => [s.step, s.came, s.on ?? "–", part(s.on, s.came), s.bought ?? "–", part(s.bought, s.came)]), "");
  if (!by("moves").tHead.rows.length) by("moves").tHead.replaceChildren(make("tr", {}, make("th", { scope: "col" }, "from"), ...now.steps.map((s) => make("th", { scope: "col" }, s))));
  rows("moves", now.steps.map((step, k) => [step, ...now.moves[k].map((count) => count || "·")]), "");
  const all = applied(now);
  rows("outcomes", Object.entries(now.records).map(([name, count]) => [name, number(count), all ? `${((100 * count) / all).toFixed(2)} %` : "–"]), "no record yet");
  rows("causes", [...Object.entries(now.rejected).map(([cause, count]) => [cause, number(count), CAUSES[cause]]), ["late", number(now.late), LATE]], "");
  rows("ignored", now.ignored.slice(0, 10).map(([name, count]) => [name, number(count)]), "none since this process began");
  const reasons = Object.entries(now.dead.by_reason).sort((a, b) => b[1] - a[1]);
  rows("reasons", reasons, "none since this process began");
  rows("latest", now.dead.latest.slice(0, 8).map((l) => [l.reason, l.detail, `${l.topic}-${l.partition} @ ${l.offset}`]), "none since this process began");
  rows("ctr", Object.entries(now.outcomes.list).map(([name, l]) => [name, l.impressions, l.clicks, share(l.ctr, l.ctr_interval), l.carts, l.purchases, share(l.conversion, l.conversion_interval)]), "no impression or click names a list of ours yet");
  rows("trials", now.experiments.flatMap((trial) => trial.variants.map((v) => [trial.experiment, v.variant, v.customers, percent(v.conversion_rate), number(v.value_per_customer), difference(v), v.verdict ?? "control"])), "none is configured");
  drawn();
  tell(now);
  for (const section of document.querySelectorAll("section")) reachable(section);
}

// The figures in a sentence for who does not see them: once a minute, not every second.
function tell(now) {
  if (seen.length < 2 || now.at - toldAt < TELL_S) return;
  toldAt = now.at;
  by("told").textContent = `${by("rate").textContent} events a second, 99 % of lists within ${by("p99").textContent.replace("≤ ", "")}, ${by("lag").textContent} records behind`;
}

// What is wider than its panel is scrolled with the arrow keys, which needs the focus.
function reachable(section) {
  const hidden = section.scrollWidth > section.clientWidth;
  if (hidden) section.tabIndex = 0;
  else section.removeAttribute("tabindex");
}

by("pause").addEventListener("click", () => {
  paused = !paused;
  by("pause").setAttribute("aria-pressed", paused);
  by("state").textContent = paused ? "paused" : "";
});

async function poll() {
  if (paused) return setTimeout(poll, POLL_MS);
  try {
    const answer = await fetch("api/live");
    if (answer.status === 401) location.reload();
    const now = await answer.json();
    if (!paused) show(now);
    if (!paused && by("state").textContent !== "live") by("state").textContent = "live";
  } catch {
    by("state").textContent = "the worker does not answer; trying again";
  }
  setTimeout(poll, POLL_MS);
}

const when = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19);
const named = (entry) => (entry.title ? `${entry.title} (${entry.item_id})` : entry.item_id);

function table(caption, heads, lines) {
  return make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...lines.map(row)));
}

function facts(pairs) {
  return make("dl", { class: "facts" }, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, `${value}`)]));
}

const reasoned = (entry) => (entry.reason ? entry.reason.source + (entry.reason.because ? ` of ${entry.reason.because}` : "") : "");

const shares = (liked) => (liked || []).map((one) => `${one.name} ${Math.round(100 * one.share)} %`).join(", ");

function likings({ category_affinities, brand_affinities, price_affinity, tags }) {
  const price = price_affinity && `${price_affinity.typical.toFixed(2)} (${price_affinity.level})`;
  return [["categories", shares(category_affinities)], ["brands", shares(brand_affinities)], ["price", price], ["tags", (tags || []).join(", ")]].filter(([, said]) => said);
}

function shownCustomer(found) {
  const parts = [make("h3", {}, found.id), facts(Object.entries(found.journey).map(([name, value]) => [name.replaceAll("_", " "), /_at$/.test(name) ? when(Number(value)) : value]))];
  if (found.profile) parts.push(facts([...["events", "sessions", "purchases", "monetary"].map((name) => [name, found.profile[name]]), ...likings(found.profile)]));
  for (const [name, said] of Object.entries(found.decided))
    parts.push(make("h4", {}, name.replaceAll("_", " ")), facts(Object.entries(said).filter(([, value]) => value !== null).map(([key, value]) => [key.replaceAll("_", " "), value])));
  for (const [name, entries] of Object.entries(found.lists))
    parts.push(table(`List: ${name}`, ["place", "item", "score", "why"], entries.map((e, k) => [k + 1, named(e), e.score.toFixed(4), reasoned(e)])));
  parts.push(table("Last item events, newest first", ["time (UTC)", "event", "item"], found.events.map((e) => [when(e.ts), e.event + (e.begins_session ? " (session begins)" : ""), named(e)])));
  return parts;
}

function shownItem(found) {
  const parts = [make("h3", {}, found.id)];
  if (found.catalog) parts.push(facts([["title", found.catalog.title], ["category", found.catalog.category.join(" > ")], ["brand", found.catalog.brand]]));
  parts.push(table("Neighbours", ["place", "item", "score"], found.neighbours.map((e, k) => [k + 1, named(e), e.score.toFixed(4)])));
  return parts;
}

function shownRules(found) {
  const changes = found.changes.map((c) => [c.rule_id, c.action, c.list_name, c.before.join(" "), c.after.join(" ")]);
  return [make("h3", {}, found.id), make("p", {}, `${found.rules} rules; ${changes.length} changes`),
    ...(changes.length ? [table("What each rule changes", ["rule", "action", "list", "before", "after"], changes)] : [])];
}

function searching(name, shown, input = name) {
  by(`${name}-form`).addEventListener("submit", async (event) => {
    event.preventDefault();
    const into = by(`${name}-found`);
    try {
      const answer = await fetch(`api/${name}?id=${encodeURIComponent(by(input).value.trim())}`);
      const found = await answer.json();
      into.replaceChildren(...(answer.ok ? shown(found) : [make("p", { class: "problem" }, found.error)]));
    } catch {
      into.replaceChildren(make("p", { class: "problem" }, "the worker does not answer"));
    }
    reachable(into.closest("section"));
    // What was found is long: told are its headings, or what went wrong.
    const told = into.querySelector(".problem") ? [into.firstChild] : into.querySelectorAll("h3, caption");
    by(`${name}-said`).textContent = [...told].map((element) => element.textContent).join(", ");
  });
}

searching("customer", shownCustomer);
searching("item", shownItem);
searching("rules", shownRules, "rules-customer");
poll();
