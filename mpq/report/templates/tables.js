"use strict";
document.documentElement.classList.add("scripted");

/* Sorting: a click on a heading; figures by value, everything else by name. */
const valueOf = (cell) => {
  const text = cell.dataset.value ?? cell.textContent.trim().replace(/[, ±].*$/, (rest) => (rest[0] === "," ? rest : ""));
  const number = Number.parseFloat(text.replaceAll(",", "").replace("−", "-"));
  return text === "∞" ? Infinity : Number.isNaN(number) || /^[a-z]/i.test(text) ? text : number;
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : typeof a === typeof b ? a.localeCompare(b, "en", { numeric: true }) : typeof a === "number" ? -1 : 1);

function sortBy(table, heading) {
  const body = table.tBodies[0];
  const column = heading.cellIndex;
  const first = column === 0;
  const text = (row) => (first && table.id === "heat-table" ? row.dataset.order : valueOf(row.cells[column]));
  const before = heading.getAttribute("aria-sort");
  const rows = [...body.rows];
  const values = new Map(rows.map((row) => [row, first && table.id === "heat-table" ? Number(text(row)) : text(row)]));
  const numeric = rows.some((row) => typeof values.get(row) === "number") && column > 0 && !(heading.textContent.trim() === "#");
  const direction = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
  const sign = direction === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    const blank = (x === "" || x === "–") - (y === "" || y === "–");
    return blank || sign * compare(x, y) || a.dataset.order - b.dataset.order;
  });
  for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  body.append(...rows);
}

for (const table of document.querySelectorAll("#heat-table, #layer-table")) {
  [...table.tBodies[0].rows].forEach((row, index) => { row.dataset.order = index; });
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) sortBy(table, button.closest("th"));
  });
}

/* Filtering: both tables follow whichever field is typed into. The heat map is searched by name, the layer table by name, scheme and kind. */
const fields = [...document.querySelectorAll("[data-filter]")];
function filter(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const id of ["heat-table", "layer-table"]) {
    const table = document.getElementById(id);
    if (!table) continue;
    const parts = (row) => (id === "heat-table" ? row.cells[0].textContent : row.textContent).toLowerCase();
    let found = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !words.every((word) => parts(row).includes(word));
      found += !row.hidden;
    }
    const count = document.querySelector(`[data-found="${id}"]`);
    if (count) count.textContent = words.length ? `${found} of ${table.tBodies[0].rows.length} layers` : "";
  }
}
for (const field of fields) {
  field.addEventListener("input", () => {
    for (const other of fields) other.value = field.value;
    filter(field.value);
  });
}
