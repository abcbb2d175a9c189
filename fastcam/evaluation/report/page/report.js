"use strict";
// Draws the maps of cards that are in sight, filters, sorts, and goes from card to card by keys.
(() => {
  const root = document.documentElement, body = document.body, home = document.getElementById("cards");
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const colors = bytes(body.dataset.colors);
  const cards = [...home.children];
  const by = id => document.getElementById(id);
  root.classList.add("script");

  // ---- maps: bilinear with half pixels, as the heatmap that FastCAM makes
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
  function draw(canvas, wide, high) {
    if (!canvas.dataset.heat || canvas.width === wide && canvas.drawn) return;
    const words = canvas.dataset.heat.split(" "), rows = +words[0], columns = +words[1], map = bytes(words[2]);
    const [s0, s1, s2, s3, t0, t1, t2, t3] = words.slice(3).map(Number);
    canvas.width = wide;
    canvas.height = high;
    const context = canvas.getContext("2d"), image = context.createImageData(wide, high), data = image.data;
    for (let y = 0; y < high; y++) {
      const v = ((y + .5) / high - s1) / (s3 - s1), b = clamp((t1 + v * (t3 - t1)) * rows - .5, 0, rows - 1);
      const y0 = Math.floor(b), y1 = Math.min(rows - 1, y0 + 1), fy = b - y0;
      for (let x = 0; x < wide; x++) {
        const u = ((x + .5) / wide - s0) / (s2 - s0), a = clamp((t0 + u * (t2 - t0)) * columns - .5, 0, columns - 1);
        const x0 = Math.floor(a), x1 = Math.min(columns - 1, x0 + 1), fx = a - x0;
        const seen = u >= 0 && u < 1 && v >= 0 && v < 1;
        const top = map[y0 * columns + x0] * (1 - fx) + map[y0 * columns + x1] * fx;
        const low = map[y1 * columns + x0] * (1 - fx) + map[y1 * columns + x1] * fx;
        const heat = seen ? Math.round(top * (1 - fy) + low * fy) : 0, at = 4 * (y * wide + x);
        data[at] = colors[3 * heat];
        data[at + 1] = colors[3 * heat + 1];
        data[at + 2] = colors[3 * heat + 2];
        data[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    canvas.drawn = true;
  }
  function clear(canvas) {
    canvas.width = canvas.height = 0;
    canvas.drawn = false;
  }
  function each(element, shown) {
    for (const canvas of element.querySelectorAll("canvas")) {
      const image = canvas.parentElement.querySelector("img");  // its attributes: image.width would lay out the page
      const side = name => +canvas.dataset.wide || +image.getAttribute(name);
      if (shown) draw(canvas, side("width"), side("height"));
      else if (canvas.drawn) clear(canvas);
    }
    if (shown && element.classList.contains("card")) slide(element);
  }
  const watch = new IntersectionObserver(seen => {
    for (const one of seen) each(one.target, one.isIntersecting);
  }, {rootMargin: "300px"});
  // ---- examples of a kind of maps: pictures and maps of their cards
  for (const link of document.querySelectorAll(".example")) {
    const stack = by(link.hash.slice(1)).querySelector(".views figure:last-child .stack").cloneNode(true);
    for (const each of stack.querySelectorAll("svg")) each.remove();
    stack.querySelector("img").alt = link.textContent;
    stack.querySelector("canvas").dataset.wide = 84;
    stack.classList.add("mean");
    link.title = link.textContent;
    link.replaceChildren(stack);
  }
  for (const element of [...cards, ...document.querySelectorAll(".classes tbody tr, .kind")]) watch.observe(element);

  // ---- the slider of a card, and the one of all
  function slide(card) {
    if (card.querySelector(".slider")) return;
    const range = Object.assign(document.createElement("input"), {type: "range", min: 0, max: 100, className: "slider"});
    range.value = by("cut").value;
    range.setAttribute("aria-label", "from picture to map: " + card.dataset.name);
    range.addEventListener("input", () => card.style.setProperty("--cut", range.value + "%"));
    card.append(range);
  }
  by("cut").addEventListener("input", event => {
    root.style.setProperty("--cut", event.target.value + "%");
    for (const card of cards) card.style.removeProperty("--cut");
    for (const range of home.querySelectorAll(".slider")) range.value = event.target.value;
  });
  by("marks").addEventListener("change", event => body.classList.toggle("no-marks", !event.target.checked));
  by("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // ---- filter and sort
  let shown = cards;
  const texts = new Map(cards.map(card => {
    const {name, predicted} = card.dataset;
    return [card, [name, predicted, card.dataset.class].join("\n").toLowerCase()];
  }));
  function filter() {
    const text = by("text").value.trim().toLowerCase(), label = by("class").value, verdict = by("verdict").value;
    const kind = by("kind") ? by("kind").value : "";
    for (const card of cards) {
      const data = card.dataset;
      const good = verdict === "" || (verdict === "flagged" ? data.flagged === "1" : data.verdict === verdict);
      const same = (label === "" || data.class === label) && (kind === "" || data.kind === kind);
      card.hidden = !(good && same && texts.get(card).includes(text));
    }
    shown = [...home.children].filter(card => !card.hidden);
    by("count").textContent = shown.length + " of " + cards.length;
  }
  function sort() {
    const value = by("sort").value, down = value.startsWith("-"), key = value.replace("-", "");
    const number = card => card.dataset[key] === "" ? Infinity : (down ? -1 : 1) * card.dataset[key];
    const words = key === "name" || key === "class";
    const order = words
      ? (a, b) => a.dataset[key].localeCompare(b.dataset[key]) || a.dataset.n - b.dataset.n
      : (a, b) => number(a) - number(b) || a.dataset.n - b.dataset.n;
    home.append(...[...cards].sort(order));
    filter();
  }
  for (const id of ["text", "class", "verdict", "kind"]) if (by(id)) by(id).addEventListener("input", filter);
  by("sort").addEventListener("input", sort);
  document.querySelector(".toolbar").addEventListener("submit", event => event.preventDefault());
  for (const button of document.querySelectorAll(".only")) {
    button.addEventListener("click", () => {
      by("class").value = button.dataset.class || "";
      if (by("kind")) by("kind").value = button.dataset.kind || "";
      filter();
      by("pictures").scrollIntoView();
    });
  }

  // ---- keys
  document.addEventListener("keydown", event => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && target.closest(".toolbar, .card")) { target.blur(); return; }
    if (target.matches("input, select, textarea, .scroll")) return;
    if (event.key === "/") { event.preventDefault(); by("text").focus(); by("text").select(); return; }
    const at = shown.indexOf(target.closest(".card")), last = shown.length - 1;
    const columns = getComputedStyle(home).gridTemplateColumns.split(" ").length;
    const near = step => {  // the next card in this direction whose place is nearest to this one's
      const from = shown[at].getBoundingClientRect();
      let best = at, least = Infinity;
      for (let i = at + step; i >= 0 && i <= last && Math.abs(i - at) <= 2 * columns; i += step) {
        const to = shown[i].getBoundingClientRect();
        const gap = Math.abs(to.left - from.left) + 3 * Math.abs(to.top - from.top);
        if (Math.abs(to.top - from.top) > 4 && gap < least) { best = i; least = gap; }
      }
      return best;
    };
    const to = {ArrowRight: () => at + 1, ArrowLeft: () => Math.max(0, at - 1), Home: () => 0, End: () => last,
      ArrowDown: () => at < 0 ? 0 : near(1), ArrowUp: () => at < 0 ? 0 : near(-1)}[event.key];
    if (!to || last < 0 || (at < 0 && !event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    const card = shown[clamp(to(), 0, last)];
    card.focus({preventScroll: true});
    card.scrollIntoView({block: "nearest"});
  });
})();
