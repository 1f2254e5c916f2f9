// Curves, timelines and graphs, as SVG. Pure: facts in, an element out. Nothing that anybody has said is ever markup.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600, HEIGHT = 110, STRIP = 26;

function make(name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

function picture(width, height, words) {
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
  return svg;
}

function died(death) {
  const when = new Date(death.at * 1000).toLocaleString();
  return `death ${death.deaths || ""}: ${death.cause}, ${when}`.replace("  ", " ");
}

/** Memory against its cap from `begin` to `end` (Unix seconds), interrupted where nothing was known, with a line for each death. */
export function memory(points, deaths, begin, end, cap) {
  const known = points.filter((point) => point.used_bytes !== null && point.at >= begin);
  const fallen = deaths.filter((death) => death.at >= begin);
  const svg = picture(WIDTH, HEIGHT, `memory, ${known.length} samples, ${fallen.length} deaths`);
  const most = Math.max(cap, 1, ...known.map((point) => point.used_bytes)) * 1.05;
  const x = (at) => ((at - begin) / (end - begin)) * WIDTH;
  const y = (bytes) => HEIGHT - (bytes / most) * HEIGHT;
  if (cap) svg.append(make("line", { class: "cap", x1: 0, x2: WIDTH, y1: y(cap), y2: y(cap) }));
  const gap = Math.max(40, ((end - begin) / Math.max(1, known.length)) * 4);
  let stretch = [];
  const flush = () => {
    if (stretch.length) {
      const line = stretch.map((point) => `${x(point.at).toFixed(1)},${y(point.used_bytes).toFixed(1)}`);
      const [first, last] = [x(stretch[0].at).toFixed(1), x(stretch.at(-1).at).toFixed(1)];
      svg.append(make("polygon", { class: "area", points: `${first},${HEIGHT} ${line.join(" ")} ${last},${HEIGHT}` }));
      svg.append(make("polyline", { class: "line", points: line.join(" ") }));
    }
    stretch = [];
  };
  for (const point of known) {
    const before = stretch.at(-1);
    if (before && (point.at - before.at > gap || point.life !== before.life)) flush();
    stretch.push(point);
  }
  flush();
  for (const death of fallen) svg.append(mark(death, x(death.at), 0, HEIGHT));
  return svg;
}

function mark(death, x, top, bottom) {
  const line = make("line", { class: "death", x1: x.toFixed(1), x2: x.toFixed(1), y1: top, y2: bottom });
  line.append(make("title", {}, died(death)));
  return line;
}

/** All the deaths that are known, over their own time, the newest at the right; what each was is in its title. */
export function timeline(deaths, now) {
  const svg = picture(WIDTH, STRIP, deaths.length ? `${deaths.length} deaths, the last of ${deaths.at(-1).cause}` : "no death yet");
  svg.append(make("line", { class: "base", x1: 0, x2: WIDTH, y1: STRIP - 2, y2: STRIP - 2 }));
  if (!deaths.length) return svg;
  const begin = Math.min(deaths[0].at, now - 60);
  for (const death of deaths) svg.append(mark(death, 2 + ((death.at - begin) / (now - begin)) * (WIDTH - 4), 2, STRIP - 2));
  return svg;
}

/** Who sees whom: an arrow from each to those whose thoughts reach it. */
export function sight(personas) {
  const [width, height] = [360, 260];
  const words = personas.map((one) => `${one.name} sees ${one.sees.length ? one.sees.join(", ") : "nobody"}`).join("; ");
  const svg = picture(width, height, words);
  const radius = 34, ring = Math.min(width, height) / 2 - radius - 8;
  const at = new Map();
  personas.forEach((one, n) => {
    const angle = (n / personas.length) * 2 * Math.PI - Math.PI / 2;
    at.set(one.name, [width / 2 + (personas.length > 1 ? ring * 1.25 * Math.cos(angle) : 0), height / 2 + (personas.length > 1 ? ring * Math.sin(angle) : 0)]);
  });
  for (const one of personas) {
    for (const other of one.sees) {
      const [from, to] = [at.get(one.name), at.get(other)];
      if (from && to && one.name !== other) svg.append(...arrow(from, to, radius));
    }
  }
  for (const one of personas) {
    const [x, y] = at.get(one.name);
    const gone = ["dead", "backoff", "failed", "stopped"].includes(one.state);
    const node = make("circle", { class: gone ? "node dead" : "node", cx: x, cy: y, r: radius });
    node.append(make("title", {}, `${one.name}: ${one.state}`));
    svg.append(node, make("text", { x, y: y + 4, "text-anchor": "middle" }, one.name.length > 9 ? `${one.name.slice(0, 8)}\u2026` : one.name));
  }
  return svg;
}

function arrow([x1, y1], [x2, y2], radius) {
  const length = Math.hypot(x2 - x1, y2 - y1) || 1;
  const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
  const bend = 14; // two that see each other have two arcs
  const [cx, cy] = [(x1 + x2) / 2 - dy * bend, (y1 + y2) / 2 + dx * bend];
  const [sx, sy] = [x1 + dx * radius - dy * 4, y1 + dy * radius + dx * 4];
  const [ex, ey] = [x2 - dx * (radius + 7) - dy * 4, y2 - dy * (radius + 7) + dx * 4];
  const path = make("path", { class: "arc", d: `M${sx} ${sy} Q${cx} ${cy} ${ex} ${ey}` });
  const [hx, hy] = [ex - cx, ey - cy];
  const angle = (Math.atan2(hy, hx) * 180) / Math.PI;
  const head = make("path", { class: "head", d: "M8 0 L-1 -4.5 L-1 4.5 Z", transform: `translate(${ex} ${ey}) rotate(${angle})` });
  return [path, head];
}
