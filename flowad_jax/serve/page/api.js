// Requests to the service.

const KEY = "flowad-token";

export class Refused extends Error {
  constructor(status, message, wait) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(KEY);
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  if (!answer.ok) {
    let message = answer.statusText;
    try {
      message = (await answer.json()).error;
    } catch {
      // no JSON: the status says enough
    }
    throw new Refused(answer.status, message, Number(answer.headers.get("Retry-After")) || 1);
  }
  return answer;
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

export function send(path, value) {
  const headers = { "Content-Type": "application/json" };
  return json(path, { method: "POST", headers, body: JSON.stringify(value) });
}

export async function picture(path) {
  return URL.createObjectURL(await (await ask(path)).blob());
}

export function keepToken(token) {
  sessionStorage.setItem(KEY, token);
}

export const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
