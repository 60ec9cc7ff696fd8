"use strict";
(() => {
  const trace = JSON.parse(document.getElementById("trace").textContent);
  const steps = trace.states.length, count = trace.start.length;
  const element = (id) => document.getElementById(id);
  const slider = element("slider"), strip = element("strip"), tip = element("tip");

  // Yellow to blue, from light to dark: told apart in grey and with colour-blind eyes, and dark
  // text stays readable on all of it.
  const stops = [[255, 236, 158], [213, 237, 179], [155, 216, 189], [98, 191, 198], [74, 163, 207]];
  const colour = (probability) => {
    const at = probability * (stops.length - 1), from = Math.min(Math.floor(at), stops.length - 2);
    const mixed = stops[from].map((c, i) => Math.round(c + (stops[from + 1][i] - c) * (at - from)));
    return `rgb(${mixed.join(",")})`;
  };

  const read = (step) => (step ? trace.states[step - 1] : trace.start);
  const masksLeft = trace.states.map((row) => row.filter((token) => token === trace.mask).length);

  // One span for each position in each pane, made once.
  const panes = ["input", "prediction"].map((name) => {
    const pane = element(name);
    return trace.positions.map((position, i) => {
      if (i && position !== trace.positions[i - 1] + 1) pane.append(" … ");
      const span = document.createElement("span");
      span.dataset.at = i;
      // Line breaks stand after a token's box, which would be torn in two around them.
      span.breaks = document.createTextNode("");
      pane.append(span, span.breaks);
      return span;
    });
  });

  const write = (span, token) => {
    const special = token === trace.eos;
    span.textContent = "";
    span.breaks.data = "";
    if (token === trace.mask) return;
    const text = special ? "eos" : trace.tokens[token];
    const end = text.length - /\n*$/.exec(text)[0].length;
    span.breaks.data = text.slice(end);
    text.split(/(\n|\t)/).forEach((part, place, parts) => {
      if (part !== "\n" && part !== "\t") return span.append(part);
      const sign = document.createElement("span");
      sign.className = "break";
      sign.textContent = part === "\n" ? "↵" : "⇥";
      span.append(sign);
      if (parts.slice(place + 1).some((rest) => rest !== "" && rest !== "\n")) span.append(part);
    });
  };

  const classes = (names) => ["t", ...Object.keys(names).filter((name) => names[name])].join(" ");

  let step = 0, timer = null;

  function show(wanted, remember = true) {
    step = Math.min(steps - 1, Math.max(0, wanted));
    const before = read(step), after = trace.states[step], predicted = trace.predictions[step];
    const earlier = step ? read(step - 1) : trace.start;
    const sure = trace.confidence[step];
    const end = predicted.indexOf(trace.eos);
    for (let i = 0; i < count; i++) {
      const [left, right] = [panes[0][i], panes[1][i]];
      const masked = before[i] === trace.mask, stays = after[i] === trace.mask;
      write(left, before[i]);
      left.className = classes({ mask: masked, was: masked && earlier[i] !== trace.mask,
        special: before[i] === trace.eos });
      write(right, predicted[i]);
      right.className = classes({ mask: predicted[i] === trace.mask, special: predicted[i] === trace.eos,
        after: end >= 0 && i > end, revealed: masked && !stays, again: !masked && stays });
      right.style.backgroundColor = sure[i] === null ? "" : colour(sure[i]);
    }
    slider.value = step + 1;
    slider.setAttribute("aria-valuetext", describe(step));
    where();
    mark();
    tip.hidden = true;
    if (remember && timer === null) {
      // Some browsers limit how often the address may change, or forbid it for files.
      try { history.replaceState(null, "", `#step=${step + 1}`); } catch { /* the page works without */ }
    }
  }

  const word = (right) => (right === null ? "" : right ? "right" : "wrong");
  const answer = (at) => (trace.answers[at] === null ? "no answer" : trace.answers[at]);
  const describe = (at) => [`step ${at + 1} of ${steps}`, `${masksLeft[at]} masks left`,
    word(trace.correct[at]), answer(at)].filter(Boolean).join(", ");

  function where() {
    const output = element("where");
    output.textContent = "";
    const add = (name, text) => {
      const span = document.createElement("span");
      span.className = name;
      span.textContent = text;
      output.append(span);
    };
    add("step", `step ${step + 1} of ${steps}`);
    add("left", `${masksLeft[step]} mask${masksLeft[step] === 1 ? "" : "s"} left`);
    if (trace.correct[step] !== null) {
      add(trace.correct[step] ? "yes" : "no", trace.correct[step] ? "✓ right" : "✗ wrong");
    }
    add("answer", `answer: ${answer(step)}`);
    output.lastChild.title = answer(step);
  }

  // The strip: a column per step; the slider is as much shorter as puts its thumb over their middles.
  const THUMB = 18, HEIGHT = 46, BARS = 30;
  let now = null, column = 0;

  function rectangle(name, x, y, width, height) {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    Object.entries({ class: name, x, y, width, height }).forEach(([key, value]) => shape.setAttribute(key, value));
    strip.append(shape);
    return shape;
  }

  function draw() {
    strip.textContent = "";
    column = strip.clientWidth / steps;
    slider.style.width = `${strip.clientWidth - column + THUMB}px`;
    slider.style.marginLeft = `${(column - THUMB) / 2}px`;
    const space = column > 4 ? Math.min(3, column / 6) : 0;
    masksLeft.forEach((masks, at) => {
      const x = at * column + space / 2, tall = (masks / count) * BARS;
      rectangle("bar", x, BARS - tall, column - space, tall);
      const right = trace.correct[at];
      if (right === null) return;
      const high = right ? 12 : 4;
      rectangle(right ? "yes" : "no", x, HEIGHT - 1 - high, column - space, high);
    });
    now = rectangle("now", 0, 1, Math.max(column, 5), HEIGHT - 2);
    mark();
  }

  function mark() {
    if (now) now.setAttribute("x", (step + 0.5) * column - now.getAttribute("width") / 2);
  }

  const under = (event) => Math.floor((event.clientX - strip.getBoundingClientRect().left) / column);

  // Playing: the whole trace in about ten seconds, no step slower than 0.7 s.
  const pause = Math.min(700, Math.max(60, 10000 / steps));

  function stop() {
    clearInterval(timer);
    timer = null;
    element("play").textContent = "▶ play";
    element("play").setAttribute("aria-label", "play");
  }

  function play() {
    if (timer !== null) return go(step);
    if (step === steps - 1) show(0);
    element("play").textContent = "❚❚ pause";
    element("play").setAttribute("aria-label", "pause");
    timer = setInterval(() => {
      if (step < steps - 1) show(step + 1);
      if (step === steps - 1) {
        stop();
        show(step);
      }
    }, pause);
  }

  function go(wanted) {
    if (timer !== null) stop();
    show(wanted);
  }

  // Tooltips, also by a tap; the same position is marked in both panes.
  function history_of(i) {
    const seen = [];
    trace.predictions.forEach((row, at) => {
      const sure = trace.confidence[at][i];
      const last = seen[seen.length - 1];
      if (sure !== null && (!last || last.token !== row[i])) seen.push({ at, token: row[i], sure });
    });
    const shown = seen.slice(-6).map(({ at, token, sure }) => `  step ${at + 1}: ${quoted(token)} ${sure}`);
    return seen.length < 2 ? "" : `\npredictions here${seen.length > 6 ? " (the last 6)" : ""}:\n${shown.join("\n")}`;
  }

  const quoted = (token) => JSON.stringify(trace.tokens[token]);

  function explain(event) {
    const span = event.target.closest("span[data-at]");
    document.querySelectorAll(".hover").forEach((marked) => marked.classList.remove("hover"));
    tip.hidden = !span;
    if (!span) return;
    const i = Number(span.dataset.at);
    const token = (span === panes[0][i] ? read(step) : trace.predictions[step])[i];
    const sure = span === panes[1][i] ? trace.confidence[step][i] : null;
    panes.forEach((pane) => pane[i].classList.add("hover"));
    tip.textContent = `${quoted(token)}\nid ${trace.ids[token]}, position ${trace.positions[i]}`
      + (sure === null ? "" : `, confidence ${sure}`) + history_of(i);
    const box = span.getBoundingClientRect();
    const below = box.bottom + 8, space = window.innerHeight - tip.offsetHeight - 4;
    tip.style.left = `${Math.max(4, Math.min(box.left, window.innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${below < space ? below : Math.max(4, box.top - tip.offsetHeight - 8)}px`;
  }

  const asked = () => {
    const match = /^#step=(\d+)$/.exec(location.hash);
    return match ? Number(match[1]) - 1 : null;
  };

  slider.addEventListener("input", () => go(slider.value - 1));
  element("play").addEventListener("click", play);
  element("back").addEventListener("click", () => go(step - 1));
  element("forth").addEventListener("click", () => go(step + 1));
  strip.addEventListener("pointerdown", (event) => go(under(event)));
  strip.addEventListener("pointermove", (event) => { if (event.buttons) go(under(event)); });
  document.querySelector(".panes").addEventListener("pointerover", explain);
  document.addEventListener("click", explain);
  document.querySelector(".panes").addEventListener("pointerleave", explain);
  window.addEventListener("hashchange", () => { if (asked() !== null) go(asked()); });
  window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  new ResizeObserver(draw).observe(strip);
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = { ArrowLeft: step - 1, ArrowRight: step + 1, Home: 0, End: steps - 1 };
    if (event.key in moves) {
      event.preventDefault();
      go(moves[event.key]);
    } else if (event.key === " " && !event.target.closest("button, summary, a")) {
      event.preventDefault();
      play();
    }
  });
  // Paper shows the last step.
  let kept = null;
  window.addEventListener("beforeprint", () => { stop(); kept = step; show(steps - 1, false); });
  window.addEventListener("afterprint", () => { if (kept !== null) show(kept, false); });

  const scale = Array.from({ length: 9 }, (_, i) => colour(i / 8));
  element("scale").style.background = `linear-gradient(90deg, ${scale.join(",")})`;
  show(asked() ?? 0, false);
})();
