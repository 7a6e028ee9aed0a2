// The HTTP API in words, from the daemon's own OpenAPI document: nothing is loaded from elsewhere.
import { element } from "./panels.js";

const document_ = await fetch("/openapi.json").then((response) => response.json());
const main = document.querySelector("main");

/** A schema in one short line: its type, and the limits that it names. */
function words(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return [...schema.anyOf.filter((each) => each.type !== "null").map(words), schema.description].filter(Boolean).join(", ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${words(schema.items ?? {})}`;
  const limits = [
    schema.minimum !== undefined && schema.maximum < 2 ** 53 ? `${schema.minimum} to ${schema.maximum}` : "",
    schema.description ?? "",
  ].filter(Boolean);
  return [schema.type ?? "any", ...limits].join(", ");
}

function fields(schema) {
  const table = element("table");
  const body = table.createTBody();
  for (const [name, field] of Object.entries(schema.properties)) {
    const row = element("tr");
    const required = schema.required?.includes(name) ? "required" : "";
    row.append(element("th", name), element("td", words(field)), element("td", required, "quiet"));
    body.append(row);
  }
  const box = element("div", undefined, "scroll");
  box.append(table);
  return box;
}

function operation(path, method, what) {
  const card = element("section", undefined, "card");
  const head = element("h2");
  head.append(element("code", `${method.toUpperCase()} ${path}`));
  card.append(head, element("p", what.description ?? what.summary));
  const parameters = (what.parameters ?? []).map((each) => [each.name, { ...each.schema, description: each.description ?? each.schema.description }]);
  if (parameters.length) card.append(fields({ properties: Object.fromEntries(parameters) }));
  const body = what.requestBody?.content?.["application/json"]?.schema?.$ref;
  if (body) card.append(element("p", `Body: ${body.split("/").pop()}`, "quiet"));
  return card;
}

main.append(element("p", "Every path below /api needs the header “Authorization: Bearer TOKEN”.", "quiet"));
for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, what] of Object.entries(methods)) main.append(operation(path, method, what));
}
for (const [name, schema] of Object.entries(document_.components.schemas)) {
  if (!schema.properties || name.endsWith("Error")) continue;
  const card = element("section", undefined, "card");
  card.append(element("h2", name), element("p", schema.description ?? ""), fields(schema));
  main.append(card);
}
