// What the server answers; an error carries its status and its sentence.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Refused(0, "the server does not answer; is `dexpie web` still running?");
  }
  const type = response.headers.get("content-type") || "";
  const body = type.includes("json") ? await response.json() : null;
  if (!response.ok) throw new Refused(response.status, body?.error || `the server says ${response.status}`);
  return body;
}

export function address(path, values) {
  return `${path}?${new URLSearchParams(values)}`;
}

export const get = (path, values = {}) => ask(address(path, values));

export const post = (path, values, body) => ask(address(path, values), {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});
