// The page: it asks for the state, hears the stream, and shows both. What anybody has said is only ever set as text.

import { memory, sight, timeline } from "/draw.js";

const HOUR = 3600, LEAST = 300, EVENTS = 200, REMEMBERED = 50, TEXT = 6000, POINTS = 800, DEATHS = 300, EVERY_MS = 5000, SOON_MS = 150, AGAIN_MS = 2000;
const TOLD = new Set(["READY", "DEATH", "RESURRECTION", "PRESSURE", "VERDICT", "STATE", "ENGINE", "SHUTDOWN", "SAID"]);
const SAID_BY_OTHERS = new Set(["ready", "starting", "dead"]); // by READY, RESURRECTION and DEATH
const by = (id) => document.getElementById(id);

const shown = new Map(); // persona -> what is known of it, and its elements
let state = null, control = false, stream = null, soon = null, last = "";

// ── asking ──

async function ask(path, options = {}) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  if (answer.status === 401) throw new Stranger();
  const body = answer.status === 204 ? null : await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error);
  return body;
}

class Stranger extends Error {}

function post(path, body = undefined) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: body && JSON.stringify(body) });
}

async function enter(secret) {
  try {
    await post("/api/v1/session", { token: secret });
  } catch (error) {
    if (!(error instanceof Stranger)) throw error;
    await post("/api/v1/session", { password: secret });
  }
}

async function begin() {
  const given = decodeURIComponent(location.hash.slice(1));
  if (given) {
    history.replaceState(null, "", location.pathname);
    await enter(given).catch(() => {});
  }
  try {
    control = (await ask("/api/v1/session")).control;
  } catch (error) {
    if (error instanceof Stranger) return stranger();
    say(error.message);
    setTimeout(begin, AGAIN_MS);
    return;
  }
  by("login").hidden = true;
  by("shown").hidden = by("leave").hidden = false;
  listen();
  await look();
  await find();
}

function stranger() {
  stream?.close();
  stream = state = null;
  by("shown").hidden = by("leave").hidden = true;
  by("login").hidden = false;
  by("secret").focus();
  say("");
}

function say(words, lost = true) {
  by("line").textContent = words;
  by("line").classList.toggle("lost", lost && words !== "");
}

// ── the state ──

async function look() {
  clearTimeout(soon);
  soon = setTimeout(look, EVERY_MS);
  try {
    state = await ask("/api/v1/state");
  } catch (error) {
    if (error instanceof Stranger) {
      clearTimeout(soon);
      return stranger();
    }
    say(error.message === "Failed to fetch" || error instanceof TypeError ? "the dashboard does not answer" : error.message);
    return;
  }
  if (stream?.readyState === EventSource.OPEN) say("live", false);
  show();
}

/** Look again as soon as what happens together has happened. */
function lookSoon() {
  clearTimeout(soon);
  soon = setTimeout(look, SOON_MS);
}

async function past() {
  const [curves, deaths] = await Promise.all([ask("/api/v1/samples?hours=1"), ask("/api/v1/deaths?limit=1000")]);
  for (const curve of curves) known(curve.persona).points = curve.points;
  for (const one of shown.values()) one.deaths = [];
  for (const death of deaths) known(death.persona).deaths.push(death);
  for (const death of deaths.slice(-REMEMBERED)) {
    const content = `${death.persona} died in life ${death.life}: ${death.cause}`;
    tell({ type: "DEATH", timestamp: death.at, sender_id: death.persona, content, metadata: death });
  }
  for (const name of shown.keys()) {
    const lines = await ask(`/api/v1/thoughts?persona=${name}&limit=3`).catch(() => []);
    const one = known(name);
    if (!one.text) one.text = lines.filter((line) => line.kind === "thought").map((line) => `${line.content}\n\n`).join("");
    speak(one);
  }
  show();
}

function known(name) {
  let one = shown.get(name);
  if (!one) {
    one = { name, points: [], deaths: [], text: "", turn: null, life: 0, status: null, elements: null };
    shown.set(name, one);
  }
  return one;
}

function show() {
  if (!state) return;
  const own = state.supervisor, deaths = state.personas.reduce((sum, persona) => sum + persona.deaths, 0);
  by("jar").textContent = state.jar;
  document.title = `${state.jar}: ${count(deaths, "death")}`;
  const live = state.personas.filter((persona) => ["ready", "thinking", "paused"].includes(persona.state)).length;
  by("facts").textContent = `${live}/${state.personas.length} live, ${count(deaths, "death")}, up ${span(own.uptime_s)}, brainjar ${own.version}` +
    (state.lease.length ? `, ${state.lease.join(" and ")} may think` : "");
  by("danger").textContent = [state.watchdog.danger, own.ledger_error && `the ledger cannot be written: ${own.ledger_error}`].filter(Boolean).join("; ");
  for (const persona of state.personas) {
    const one = known(persona.name);
    one.status = persona;
    if (!one.elements) add(one);
    draw(one);
  }
  for (const [name, one] of shown) {
    if (state.personas.some((persona) => persona.name === name)) continue;
    one.elements?.card.remove();
    shown.delete(name);
  }
  host();
  const picture = sight(state.personas);
  by("sight").replaceChildren(picture);
}

function host() {
  const rows = state.watchdog.senses.filter((sense) => sense.value !== null).map((sense) => {
    const unit = sense.sense === "heat" ? "\u00a0\u00b0C" : "\u00a0%";
    const mark = sense.mark === null ? "" : `, mark at ${round(sense.mark)}${unit}`;
    return [`${sense.sense} ${sense.where}`.trim(), `${round(sense.value)}${unit}${mark}${sense.level && sense.level !== "calm" ? ` (${sense.level})` : ""}`];
  });
  rows.push(["supervisor", `pid ${state.supervisor.pid}, ${size(state.supervisor.rss_bytes)}`]);
  if (state.watchdog.blind) rows.push(["watchdog", `senses nothing: ${state.watchdog.blind}`]);
  by("host").replaceChildren(...rows.flatMap(([key, value]) => [element("dt", key), element("dd", value)]));
}

function add(one) {
  const card = by("persona").content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  const { name } = one;
  one.elements = { card };
  for (const key of ["state", "mood", "facts", "reason", "meter", "used", "amount", "memory", "timeline", "thought", "controls", "pause", "answer"]) {
    one.elements[key] = part(key);
  }
  card.id = `persona-${name}`;
  part("name").textContent = name;
  part("meter").setAttribute("aria-label", `memory of ${name}`);
  part("thought").setAttribute("aria-label", `thoughts of ${name}`);
  part("controls").hidden = !control;
  part("pause").onclick = () => act(one, one.status.paused.length || one.status.state === "paused" ? "resume" : "pause");
  part("restart").onclick = async () => (await sure(`End the life of ${name} in good order, and begin it again?`)) && act(one, "restart");
  part("kill").onclick = async () => (await sure(`Kill ${name}? It will live again, and know that it has died.`)) && act(one, "kill");
  const form = part("say"), input = form.querySelector("input");
  input.setAttribute("aria-label", `say something to ${name}`);
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (await act(one, "say", { text: input.value })) input.value = "";
  };
  by("personas").append(card);
  by("whose").append(new Option(name, name));
  speak(one);
}

function draw(one) {
  const { status, elements } = one, now = Date.now() / 1000;
  elements.state.textContent = status.state + (status.waiting_s === null || status.state !== "ready" ? "" : `, waits ${span(status.waiting_s)}`);
  elements.state.className = `state ${status.state}`;
  elements.mood.textContent = status.mood;
  const facts = [`life ${status.life}`, count(status.deaths, "death"), status.pid === null ? null : `pid ${status.pid}`, `${round(status.tokens_per_s)} tokens/s`,
    `${status.tokens} tokens`, status.last_death && `last died ${span(now - status.last_death.at)} ago: ${status.last_death.cause}`];
  elements.facts.textContent = facts.filter(Boolean).join(", ");
  elements.reason.textContent = status.reason;
  const used = status.memory.private_bytes ?? 0, cap = status.memory.cap_bytes, share = cap ? used / cap : 0;
  elements.meter.setAttribute("aria-valuemax", cap);
  elements.meter.setAttribute("aria-valuenow", Math.min(used, cap));
  elements.meter.setAttribute("aria-valuetext", `${size(used)} of ${size(cap)}`);
  elements.used.style.width = `${Math.min(100, share * 100)}%`;
  elements.used.className = share > 0.95 ? "used full" : share > 0.8 ? "used near" : "used";
  elements.amount.textContent = `${size(status.memory.private_bytes)} of ${size(cap)} private memory`;
  const first = Math.min(one.points[0]?.at ?? now, one.deaths.at(-1)?.at ?? now);
  const begin = Math.max(now - HOUR, Math.min(first, now - LEAST));
  elements.memory.firstElementChild.textContent = `Memory, the last ${span(now - begin)}; a line for each death`;
  replace(elements.memory, memory(one.points, one.deaths, begin, now, cap));
  elements.timeline.firstElementChild.textContent = one.deaths.length ? `Deaths since ${new Date(one.deaths[0].at * 1000).toLocaleString()}` : "No death yet";
  replace(elements.timeline, timeline(one.deaths.slice(-DEATHS), now));
  elements.pause.textContent = status.paused.length || status.state === "paused" ? "Resume" : "Pause";
}

function replace(figure, svg) {
  figure.querySelector("svg")?.remove();
  figure.append(svg);
}

function speak(one) {
  if (one.text.length > TEXT) one.text = one.text.slice(-TEXT * 0.75);
  const pane = one.elements?.thought;
  if (!pane) return;
  const follows = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
  pane.textContent = one.text;
  if (follows) pane.scrollTop = pane.scrollHeight;
}

// ── the stream ──

function listen() {
  stream?.close();
  stream = new EventSource(last ? `/api/v1/events?since=${last}` : "/api/v1/events");
  stream.onopen = () => { say("live", false); lookSoon(); past().catch(() => {}); };
  stream.onerror = () => {
    if (!stream) return;
    say("not live: the dashboard is being reached again");
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => stream && listen(), AGAIN_MS); // a refusal is final for the browser
    lookSoon();
  };
  for (const type of [...TOLD, "TOKEN", "THOUGHT", "HEARTBEAT", "GAP"]) stream.addEventListener(type, (event) => hear(event.lastEventId, JSON.parse(event.data)));
  stream.addEventListener("RESET", () => past().catch(() => {}));
}

function hear(id, event) {
  if (id === last) return;
  last = id;
  const one = shown.get(event.sender_id), data = event.metadata;
  if (event.type === "TOKEN" && one) {
    if (one.turn !== data.turn || one.life !== event.life) one.text += one.text.endsWith("\n") || !one.text ? "" : "\n\n";
    one.turn = data.turn;
    one.life = event.life;
    one.text += event.content;
    speak(one);
  } else if (event.type === "THOUGHT" && one) {
    if (one.turn !== data.turn || one.life !== event.life) one.text += event.content;
    one.text += "\n\n";
    one.turn = null;
    speak(one);
    lookSoon();
  } else if (event.type === "HEARTBEAT" && one) {
    if (data.private_bytes !== null) {
      one.points.push({ at: event.timestamp, life: event.life, used_bytes: data.private_bytes });
      thin(one);
    }
  } else if (event.type === "DEATH" && one && data.cause && !one.deaths.some((death) => death.birth === data.birth)) {
    one.deaths.push(data);
    one.deaths = one.deaths.slice(-1000);
    one.text = `${one.text.trimEnd()}\n\u2020 ${data.cause}\n\n`;
    speak(one);
  }
  if (TOLD.has(event.type)) {
    if (event.type !== "STATE" || !SAID_BY_OTHERS.has(data.state)) tell(event);
    lookSoon();
  }
}

/** What the page has heard itself comes every second, what the ledger has every ten: of what is old, one in ten stays. */
function thin(one) {
  const begin = Date.now() / 1000 - HOUR;
  if (one.points.length > POINTS) one.points = one.points.filter((point, n) => point.at > begin && (n % 10 === 0 || n > one.points.length - 120));
}

/** The newest first; a death once, whether it was heard or read. */
function tell(event) {
  const list = by("events"), key = event.type === "DEATH" ? `${event.sender_id} ${event.metadata.birth}` : "";
  if (key && [...list.children].some((item) => item.dataset.key === key)) return;
  const item = element("li");
  item.className = event.type;
  item.dataset.key = key;
  item.dataset.at = event.timestamp;
  item.append(when(event.timestamp), " ", element("b", event.type), event.content.startsWith(event.sender_id) ? ` ${event.content}` : ` ${event.sender_id}: ${event.content}`);
  const after = [...list.children].find((other) => Number(other.dataset.at) <= event.timestamp);
  list.insertBefore(item, after ?? null);
  while (list.children.length > EVENTS) list.lastElementChild.remove();
}

// ── acting ──

function sure(words) {
  const dialog = by("question");
  by("asked").textContent = words;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

async function act(one, action, body = undefined) {
  const { answer } = one.elements;
  answer.textContent = `${action}\u2026`;
  try {
    answer.textContent = (await post(`/api/v1/personas/${one.name}/${action}`, body)).said;
    lookSoon();
    return true;
  } catch (error) {
    answer.textContent = error.message;
    return error instanceof Stranger ? stranger() : false;
  }
}

async function find(event) {
  event?.preventDefault();
  const where = by("where").value, query = new URLSearchParams({ limit: "200" });
  if (by("words").value) query.set("search", by("words").value);
  if (by("whose").value) query.set("persona", by("whose").value);
  let rows;
  try {
    rows = (await ask(`/api/v1/${where}?${query}`)).reverse();
  } catch (error) {
    by("found").replaceChildren(row("td", [error.message]));
    return;
  }
  const titles = where === "deaths" ? ["When", "Who", "Life", "Cause", "Last words"] : ["When", "Who", "Life", "Kind", "Words"];
  by("found").replaceChildren(row("th", titles), ...rows.map((one) => where === "deaths"
    ? row("td", [when(one.at, true), one.persona, one.life, one.cause, one.last_words])
    : row("td", [when(one.at, true), one.persona, one.life, one.kind, one.content])));
  if (!rows.length) by("found").append(row("td", ["nothing"]));
}

// ── words ──

function row(kind, cells) {
  const line = element("tr");
  cells.forEach((cell, n) => {
    const one = element(kind);
    if (kind === "th") one.scope = "col";
    if (n === 4) one.className = "words";
    one.append(cell instanceof Node ? cell : String(cell));
    line.append(one);
  });
  return line;
}

function element(name, text = "") {
  const one = document.createElement(name);
  one.textContent = text;
  return one;
}

function when(at, day = false) {
  const one = element("time"), date = new Date(at * 1000);
  one.dateTime = date.toISOString();
  one.textContent = day ? date.toLocaleString() : date.toLocaleTimeString();
  return one;
}

function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "-";
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function round(number) {
  return Number(number.toFixed(1)).toString();
}

by("login").onsubmit = async (event) => {
  event.preventDefault();
  by("refused").textContent = "";
  try {
    await enter(by("secret").value);
    by("secret").value = "";
    begin();
  } catch (error) {
    by("refused").textContent = error instanceof Stranger ? "That is not it." : error.message;
  }
};
by("leave").onclick = async () => {
  await ask("/api/v1/session", { method: "DELETE" }).catch(() => {});
  stranger();
};
by("search").onsubmit = find;
begin();
