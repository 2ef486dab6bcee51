// Makes tables sortable and filterable. Without it the page says the same.
"use strict";

const order = new Intl.Collator("en", { numeric: true });

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
    header.append(" ", button);
    button.addEventListener("click", () => {
      const descends = header.getAttribute("aria-sort") === "ascending";
      const body = table.tBodies[0];
      const rows = Array.from(body.rows, (row) => [keyOf(row, column), row]);
      rows.sort((a, b) => (descends ? order.compare(b[0], a[0]) : order.compare(a[0], b[0])));
      rows.forEach((pair) => body.append(pair[1]));
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descends ? "descending" : "ascending");
    });
  });
}

function makeFilterable(table) {
  const rows = Array.from(table.tBodies[0].rows);
  const label = document.createElement("label");
  const field = document.createElement("input");
  const status = document.createElement("span");
  const tools = document.createElement("p");
  field.type = "search";
  status.setAttribute("role", "status");
  label.append("Filter " + table.dataset.name + " ", field);
  tools.className = "tools";
  tools.append(label, " ", status);
  table.parentElement.before(tools);
  let texts = null;
  let waiting = 0;
  const apply = () => {
    texts ??= rows.map((row) => row.textContent.toLowerCase());
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    status.textContent = shown + " of " + rows.length + " rows are shown";
  };
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 200);
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length > 1) {
    makeSortable(table);
    makeFilterable(table);
  }
}
