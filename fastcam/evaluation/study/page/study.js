"use strict";
// Asks one trial after the other, and hands the answers over as a file.
(() => {
  const by = id => document.getElementById(id);
  const content = JSON.parse(by("content").textContent);
  const SCALE = ["A is clearly more reasonable", "A is slightly more reasonable", "both are equally reasonable",
    "B is slightly more reasonable", "B is clearly more reasonable"];
  let rater = 0, plan = [], at = 0, since = 0, answers = new Map();
  const store = () => "fastcam-study-" + content.study + "-" + rater;

  function remembered() {  // where the browser keeps nothing for files, a study is done in one go
    try { return new Map(JSON.parse(localStorage.getItem(store())) || []); } catch { return new Map(); }
  }
  function remember() {
    try { localStorage.setItem(store(), JSON.stringify([...answers])); } catch { /* see above */ }
  }
  function show(id) {
    for (const name of ["start", "asking", "end"]) by(name).hidden = name !== id;
    const title = by(id).querySelector("h1");
    if (title.tabIndex === -1) title.focus();
  }
  function figure(name, letter) {
    const image = document.createElement("img"), frame = document.createElement("figure");
    image.src = content.images[name];
    image.alt = letter ? "what computer " + letter + " looked at" : "what the computer looked at";
    frame.append(image);
    if (letter) frame.append(Object.assign(document.createElement("figcaption"), {textContent: "Computer " + letter}));
    return frame;
  }
  function ask() {
    if (at >= plan.length) { show("end"); return; }
    const name = plan[at], trial = content.trials[name], trust = trial.kind === "trust";
    by("place").textContent = "Picture " + (at + 1) + " of " + plan.length;
    by("bar").max = plan.length;
    by("bar").value = at;
    by("question").textContent = trust
      ? "Both computers said: " + trial.choices[0] + ". Which of them had the better reason?"
      : "What does the marking show?";
    by("images").replaceChildren(...trial.images.map((image, i) => figure(image, trust ? "AB"[i] : "")));
    const labels = trust ? SCALE : trial.choices, given = answers.get(name);
    by("choices").replaceChildren(...labels.map((label, i) => {
      const button = Object.assign(document.createElement("button"), {type: "button", textContent: label});
      const value = trust ? i - 2 : i;
      button.setAttribute("aria-pressed", String(given !== undefined && given.choice === value));
      button.addEventListener("click", () => answer(name, value));
      return button;
    }));
    by("last").textContent = labels.length;
    by("back").hidden = at === 0;
    since = performance.now();
    show("asking");
  }
  function answer(name, choice) {
    answers.set(name, {choice, ms: Math.round(performance.now() - since)});
    remember();
    at += 1;
    ask();
  }
  by("who").addEventListener("submit", event => {
    event.preventDefault();
    rater = Number(by("number").value);
    plan = content.plan[rater - 1];
    if (!plan) return;
    answers = remembered();
    at = plan.findIndex(name => !answers.has(name));
    if (at < 0) at = plan.length;
    ask();
  });
  by("back").addEventListener("click", () => { at = Math.max(0, at - 1); ask(); });
  by("save").addEventListener("click", () => {
    const rows = plan.filter(name => answers.has(name)).map(name => ({trial: name, ...answers.get(name)}));
    const text = JSON.stringify({study: content.study, rater, answers: rows}, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
    link.download = "answers-" + content.study + "-" + rater + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  document.addEventListener("keydown", event => {
    if (by("asking").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const button = by("choices").children[Number(event.key) - 1];
    if (/^[1-9]$/.test(event.key) && button) button.click();
  });
  const wished = Number(location.hash.slice(1));
  if (wished >= 1 && wished <= content.plan.length) by("number").value = wished;
})();
