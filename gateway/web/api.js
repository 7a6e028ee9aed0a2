// The page's way to the daemon: the token, JSON requests, and the live stream.
import { parseEvents } from "./format.js";

const KEY = "swarm-token";
const AGAIN_MS = 2000;

/** The token comes in the address's fragment (never sent to a server) and is kept for this tab. */
export function takeToken() {
  const match = /token=([^&]+)/.exec(location.hash);
  if (match) {
    keepToken(decodeURIComponent(match[1]));
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY);
}

/** Null forgets it. */
export function keepToken(token) {
  if (token === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, token);
}

const headers = () => ({ authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}` });

export const get = (path) => call(path, {});

export const post = (path, body) =>
  call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

async function call(path, options) {
  const response = await fetch(path, { ...options, headers: { ...options.headers, ...headers() } });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const { detail } = answer;
  const words = Array.isArray(detail)
    ? detail.map((each) => `${each.loc.slice(1).join(".")}: ${each.msg}`).join("; ")
    : detail ?? `the daemon says ${response.status}`;
  throw Object.assign(new Error(words), { status: response.status });
}

/** Calls onEvent(kind, event) for ever; reconnects; onState("live" | "lost") says how it stands. */
export async function follow(onEvent, onState) {
  for (;;) {
    try {
      const response = await fetch("/api/events", { headers: headers() });
      if (!response.ok) throw new Error(`the daemon says ${response.status}`);
      onState("live");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const parsed = parseEvents(rest + value);
        rest = parsed.rest;
        for (const { event, data } of parsed.events) onEvent(event, data);
      }
    } catch {
      // The daemon is away; what it says when it is back counts.
    }
    onState("lost");
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}
