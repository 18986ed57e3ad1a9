"use strict";
const PRODUCTS = {
  tent: ["Tent", 180], stove: ["Camping stove", 45], lamp: ["Head lamp", 30], bag: ["Sleeping bag", 95],
  mat: ["Sleeping mat", 40], boots: ["Hiking boots", 140], rope: ["Climbing rope", 110], helmet: ["Helmet", 60],
};
const OWN = ["repeat", "return"]; // sources of what comes back by itself
const POLL_MS = 50;
const GIVE_UP_MS = 15000;
const by = (id) => document.getElementById(id);
const name = (item) => PRODUCTS[item]?.[0] ?? item;
let before = [];

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  Object.assign(element, attributes);
  return element;
}

async function lists(item) {
  const answer = await fetch(`lists?item=${encodeURIComponent(item ?? "")}`);
  return answer.json();
}

function show(now) {
  by("step").textContent = now.step;
  const words = { session: "from what you did", similar: "from what others looked at with it", trending: "what is popular now", nothing: "look around: the list follows you" };
  by("origin").textContent = words[now.origin];
  by("list").replaceChildren(...now.items.map((entry) => {
    const card = make("li", name(entry.item_id), { className: before.includes(entry.item_id) ? "" : "new" });
    const why = entry.because ? `because of ${name(entry.because)}` : OWN.includes(entry.source) ? "you looked at it" : "";
    if (why) card.append(make("div", `${why} (${entry.source})`, { className: "why" }));
    return card;
  }));
  before = now.items.map((entry) => entry.item_id);
}

async function did(event, item) {
  const started = performance.now();
  by("fresh").textContent = "…";
  const sent = await fetch("events", { method: "POST", body: JSON.stringify({ event, item_id: item, price: PRODUCTS[item][1] }) });
  const { version } = await sent.json();
  while (performance.now() - started < GIVE_UP_MS) {
    const now = await lists(item);
    if (now.version >= version) {
      show(now);
      by("fresh").textContent = `your list knew ${Math.round(performance.now() - started)} ms after your click`;
      return;
    }
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
  by("fresh").textContent = "no list came: is a worker running?";
}

for (const [item, [title, price]] of Object.entries(PRODUCTS)) {
  const card = make("li", "");
  card.append(make("strong", title), make("div", `€ ${price}`));
  for (const [event, label] of [["view", "Look at"], ["add_to_cart", "Add to cart"]]) {
    const button = make("button", label, { onclick: () => did(event, item) });
    button.setAttribute("aria-label", `${label} ${title}`);
    card.append(button);
  }
  by("products").append(card);
}
lists().then(show);
