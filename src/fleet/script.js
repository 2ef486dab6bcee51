// Makes tables sortable and filterable. Without it the page says the same.
"use strict";

const collator = new Intl.Collator("en");

// numbers by their value; IDs have digits, too, and are no numbers
function order(a, b) {
  return a - b || collator.compare(a, b);
}

function keyOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.sort ?? cell.textContent;
}

function makeSortable(table) {
  const headers = Array.from(table.tHead.rows[0].cells);
  headers.forEach((header, column) => {
    // beside the name and not around it: browsers print no buttons in a header that is repeated
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", "Sort by " + header.textContent);
    header.append("\u00a0", button);
    button.addEventListener("click", () => {
      const descends = header.getAttribute("aria-sort") === "ascending";
      const body = table.tBodies[0];
      const rows = Array.from(body.rows, (row) => [keyOf(row, column), row]);
      rows.sort((a, b) => (descends ? order(b[0], a[0]) : order(a[0], b[0])));
      rows.forEach((pair) => body.append(pair[1]));
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descends ? "descending" : "ascending");
    });
  });
}

// adds a field with its label
function addField(tools, name, kind) {
  const label = document.createElement("label");
  const field = document.createElement(kind);
  label.append(name + " ", field);
  tools.append(label);
  return field;
}

function makeFilterable(table, menuOf) {
  const rows = Array.from(table.tBodies[0].rows);
  const tools = document.createElement("p");
  const field = addField(tools, "Filter " + table.dataset.name, "input");
  field.type = "search";
  const column = menuOf?.cellIndex;
  const values = menuOf ? rows.map((row) => row.cells[column].textContent) : [];
  const menu = menuOf && addField(tools, menuOf.textContent.trim(), "select");
  for (const value of menu ? ["any", ...new Set(values)] : []) {
    menu.add(new Option(value, value === "any" ? "" : value));
  }
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  tools.className = "tools";
  tools.append(status);
  table.parentElement.before(tools);
  let texts = null;
  let waiting = 0;
  const apply = () => {
    texts ??= rows.map((row) => row.textContent.toLowerCase());
    const text = field.value.trim().toLowerCase();
    // a whole value means just that: "encrypted" is also a part of "not encrypted"
    const whole = values.find((value) => value.toLowerCase() === text);
    const words = whole ? [] : text.split(/\s+/);
    let shown = 0;
    rows.forEach((row, index) => {
      const fits = [whole, menu?.value].every((value) => !value || value === values[index]);
      row.hidden = !(fits && words.every((word) => texts[index].includes(word)));
      shown += row.hidden ? 0 : 1;
    });
    status.textContent = shown + " of " + rows.length + " rows are shown";
  };
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 200);
  });
  menu?.addEventListener("change", apply);
}

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length > 1) {
    makeFilterable(table, table.querySelector("th[data-menu]"));
    makeSortable(table);
  }
}
