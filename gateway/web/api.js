// The page's way to the daemon: the token, JSON requests, and the live stream.
import { parseEvents } from "./format.js";

const KEY = "swarm-token";

/** The token comes in the address's fragment (never sent to a server) and is kept for this tab. */
export function takeToken() {
  const match = /token=([^&]+)/.exec(location.hash);
  if (match) {
    sessionStorage.setItem(KEY, decodeURIComponent(match[1]));
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY);
}

const headers = () => ({ authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}` });

export async function get(path) {
  const response = await fetch(path, { headers: headers() });
  if (!response.ok) throw Object.assign(new Error((await response.json()).detail), { status: response.status });
  return response.json();
}

export async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { ...headers(), "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(typeof answer.detail === "string" ? answer.detail : JSON.stringify(answer.detail));
  return answer;
}

/** Calls onEvent(kind, event) for ever; reconnects, and says through onState whether it is live. */
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
    } catch (error) {
      onState(`not connected: ${error.message}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
