/* Plots in SVG for the pages of reports. They are drawn as wide as their figure is, so that their text
   has one size on every screen, and drawn anew when that changes; a pointer over them shows values. */
const TOP = 12, BOTTOM = 28, LEFT = 62, RIGHT = 16;

function node(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
function time(ns) {
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["us", 1e3]])
    if (ns >= size) return `${Number((ns / size).toPrecision(3))} ${unit}`;
  return `${Math.round(ns)} ns`;
}
const count = (value) => (value >= 100 || Number.isInteger(value) ? Math.round(value) : Number(value.toPrecision(3))).toLocaleString("en");
const place = (share, from, to) => from + Math.min(1, Math.max(0, share)) * (to - from);

/* A step of 1, 2 or 5 times a power of ten that divides `span` into at most `most` parts. */
function step(span, most) {
  const rough = span / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((it) => it >= rough * 0.999999);
}
/* An axis from zero: it ends at the first round value that holds all of the data, or with the data. */
function linear(most, { parts = 5, exact = false, text = count } = {}) {
  const last = most > 0 ? most : 1, by = step(last, parts), end = exact ? last : Math.ceil(last / by - 1e-9) * by;
  const ticks = [];
  for (let at = 0; at <= end * 1.000001; at += by) ticks.push([at, text(Number(at.toPrecision(6)))]);
  return { share: (value) => value / end, ticks };
}
/* A logarithmic axis of times, between the round values next to the data on either side. */
function times(values) {
  const known = values.filter((value) => value > 0);
  const low = Math.min(...known, known.length ? Infinity : 1e6), high = Math.max(...known, known.length ? 0 : 1e6);
  const round = (value, up) => {
    const power = 10 ** Math.floor(Math.log10(value) + 1e-9), steps = [1, 2, 5, 10].map((it) => it * power);
    return up ? steps.find((it) => it >= value * 0.999) : steps.reverse().find((it) => it <= value * 1.001);
  };
  const from = round(low, false), to = Math.max(round(high, true), from * 2);
  const decades = Math.log10(to / from), ticks = [];
  for (let power = 10 ** Math.floor(Math.log10(from) + 1e-9); power <= to; power *= 10)
    for (const factor of decades > 2.5 ? [1] : [1, 2, 5]) {
      const at = factor * power;
      if (at >= from * 0.999 && at <= to * 1.001) ticks.push([at, time(at)]);
    }
  return { share: (ns) => Math.log10(Math.max(ns, from) / from) / decades, ticks };
}
function seconds(last, parts) {
  return linear(last, { parts, exact: true, text: (at) => (last >= 300 ? `${Number((at / 60).toFixed(1))} min` : `${at} s`) });
}

const drawings = [];
function draw(id, make) {
  const figure = document.getElementById(id);
  if (!figure) return;
  const once = () => figure.replaceChildren(...make(Math.max(280, figure.clientWidth || 900)));
  drawings.push(once);
  once();
}
let lastWidth = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth !== lastWidth) drawings.forEach((again) => again());
  lastWidth = window.innerWidth;
});

function legend(lines) {
  const key = element("div", "key");
  for (const { colour, title } of lines) {
    const entry = element("span"), patch = element("i");
    patch.style.background = colour;
    entry.append(patch, title);
    key.append(entry);
  }
  return key;
}
/* A plot. `x` and `y` are axes; lines have points (pairs), a colour and a title, and the pointer passes
   over those that are marks; `showX` and `showY` put a value into words; `axes(width)` may make the axes
   for a width. */
function plot(id, { axes, lines, showX, showY, height = 260 }) {
  draw(id, (W) => {
    const { x, y } = axes(W);
    const svg = node("svg", { viewBox: `0 0 ${W} ${height}`, width: W, height, role: "img" });
    const across = (value) => place(x.share(value), LEFT, W - RIGHT), up = (value) => place(y.share(value), height - BOTTOM, TOP);
    let lastUp = Infinity;
    for (const [value, text] of y.ticks) {
      const at = up(value);
      svg.append(node("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: at, y2: at }));
      if (lastUp - at < 14) continue;
      svg.append(node("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, text));
      lastUp = at;
    }
    let free = 0;
    for (const [value, text] of x.ticks) {
      const at = across(value), half = text.length * 3.4;
      svg.append(node("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
      if (at - half < free) continue;
      const anchor = at + half > W ? "end" : "middle";
      svg.append(node("text", { x: anchor === "end" ? W : at, y: height - 9, "text-anchor": anchor }, text));
      free = at + half + 6;
    }
    for (const { points, colour } of lines) {
      if (points.length === 0) continue;
      const path = points.map(([a, b]) => `${across(a).toFixed(1)},${up(b).toFixed(1)}`).join(" ");
      svg.append(node("polyline", { points: path, fill: "none", stroke: colour, "stroke-width": 2, "stroke-linejoin": "round" }));
      if (points.length === 1) svg.append(node("circle", { cx: across(points[0][0]), cy: up(points[0][1]), r: 3, fill: colour }));
    }
    const tip = element("div", "tip"), cursor = node("line", { class: "cursor", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
    svg.append(cursor);
    const hide = () => { tip.style.display = "none"; cursor.setAttribute("visibility", "hidden"); };
    svg.addEventListener("pointerleave", hide);
    const show = (event) => {
      const box = svg.getBoundingClientRect(), pointer = ((event.clientX - box.left) / box.width) * W;
      const near = lines.filter((line) => line.points.length > 0 && !line.isMark).map((line) => {
        const point = line.points.reduce((best, it) =>
          Math.abs(across(it[0]) - pointer) < Math.abs(across(best[0]) - pointer) ? it : best);
        return { line, point };
      });
      if (near.length === 0) return;
      const at = across(near[0].point[0]);
      cursor.setAttribute("x1", at); cursor.setAttribute("x2", at); cursor.setAttribute("visibility", "visible");
      tip.replaceChildren(element("b", "", showX(near[0].point[0])));
      for (const { line, point } of near) {
        const row = element("div"), patch = element("i");
        patch.style.background = line.colour;
        row.append(patch, `${line.title}: ${showY(point[1])}`);
        tip.append(row);
      }
      tip.style.display = "block";
      tip.style.left = `${Math.min(Math.max(0, at + 10), Math.max(0, W - tip.offsetWidth))}px`;
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    const holder = element("div", "plot");
    holder.append(svg, tip);
    return [legend(lines), holder];
  });
}
/* Bars: rows of name, pairs of value and shade, and text; `share` places a value. The name and the
   text stand above the bar, so that they fit any width. */
function bars(id, rows, share) {
  draw(id, (W) => {
    const height = Math.max(1, rows.length) * 40 + 4;
    const svg = node("svg", { viewBox: `0 0 ${W} ${height}`, width: W, height, role: "img" });
    if (rows.length === 0) svg.append(node("text", { x: 0, y: 20 }, "none"));
    rows.forEach(({ name, parts, text, colour }, row) => {
      const y = row * 40;
      svg.append(node("text", { x: 0, y: y + 13 }, name));
      svg.append(node("text", { x: W, y: y + 13, "text-anchor": "end" }, text));
      for (const [value, opacity] of parts)
        svg.append(node("rect", { x: 0, y: y + 18, height: 14, rx: 3, width: Math.max(2, place(share(value), 0, W)), fill: colour, opacity }));
    });
    return [svg];
  });
}
