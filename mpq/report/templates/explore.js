const data = JSON.parse(document.getElementById("data").textContent);
const figure = (value) => (value === null ? "∞" : value < 0 && value > -1e-6 ? "0" : Math.abs(value) >= 1e-4 || value === 0 ? String(Number(value.toPrecision(4))) : value.toExponential(2));
const whole = (count) => count.toLocaleString("en");
const bold = (text) => { const element = document.createElement("b"); element.textContent = text; return element; };
let choice = data.start;

/* The heat map: a cell that is pointed at, touched or focused is read out in full. Arrow keys move between cells. */
const heat = document.getElementById("heat-table");
const rowsOf = heat ? [...heat.tBodies[0].rows] : [];
const columns = heat ? [...heat.tHead.rows[0].cells].slice(1).map((cell) => data.schemes.indexOf(cell.textContent.trim())) : [];
const reading = document.getElementById("heat-reading");
function readCell(cell) {
  const row = Number(cell.parentNode.dataset.order);
  const scheme = columns[cell.cellIndex - 1];
  const found = data.cells[row][scheme];
  const bits = (8 * data.bytes[row][scheme]) / data.weights[row];
  const noise = found && found[1] !== null ? ` ±${figure(found[1])}` : "";
  reading.textContent = found
    ? `${data.names[row]} at ${data.schemes[scheme]}: ${data.metric} ${figure(found[0])}${noise}; ${whole(data.bytes[row][scheme])} bytes, ${bits.toFixed(3)} bits per weight`
    : `${data.names[row]}: ${data.schemes[scheme]} was not measured`;
}
if (heat) {
  const cellOf = (event) => event.target.closest("td");
  for (const kind of ["pointerover", "focusin", "click"]) heat.addEventListener(kind, (event) => { const cell = cellOf(event); if (cell) readCell(cell); });
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const first = heat.tBodies[0].rows[0]?.cells[1];
  if (first) first.tabIndex = 0;
  heat.addEventListener("keydown", (event) => {
    const cell = cellOf(event), move = moves[event.key];
    if (!cell || !move) return;
    event.preventDefault();
    const shown = [...heat.tBodies[0].rows].filter((row) => !row.hidden);
    const target = shown[shown.indexOf(cell.parentNode) + move[0]]?.cells[cell.cellIndex + move[1]];
    if (!target || target.tagName !== "TD") return;
    cell.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  });
}

/* The explorer: the best plan of another size, on the frontier, in the columns, and as rings on the heat map. */
const charts = [...document.querySelectorAll(".bars")].map((svg) => [...svg.querySelectorAll("[data-upper], [data-lower]")].map((group) => [...group.children]));
function draw(next) {
  data.bars.forEach((bar, number) => {
    charts[number].forEach((rects, part) => rects.forEach((rect, layer) => {
      const bytes = data.bytes[layer][next[layer]];
      const most = bar.floors[part] - (part ? bar.floors[0] + 34 : 12);
      const height = Math.min(most, part ? bytes * bar.byte : ((8 * bytes) / data.weights[layer]) * bar.bit);
      rect.setAttribute("class", `s${next[layer]}`);
      rect.setAttribute("height", height.toFixed(1));
      rect.setAttribute("y", (bar.floors[part] - height).toFixed(1));
    }));
  });
  rowsOf.forEach((row, layer) => {
    if (next[layer] === choice[layer]) return;
    row.cells[columns.indexOf(choice[layer]) + 1]?.removeAttribute("aria-current");
    row.cells[columns.indexOf(next[layer]) + 1]?.setAttribute("aria-current", "true");
  });
  choice = next;
}
const slider = document.getElementById("budget");
if (slider) {
  const output = document.getElementById("reading"), back = document.getElementById("back");
  const sizeOf = (plan) => plan.reduce((sum, scheme, layer) => sum + data.bytes[layer][scheme], 0);
  const home = data.points.reduce((best, point, index) => (Math.abs(point.layers - sizeOf(data.start)) < Math.abs(data.points[best].layers - sizeOf(data.start)) ? index : best), 0);
  const say = (point) => {
    const changed = point.choice.filter((scheme, layer) => scheme !== data.start[layer]).length;
    output.replaceChildren(bold(`${point.bits} bits`), " per weight, ", bold(`${whole(point.file)} bytes`), " as a file, predicted error ", bold(figure(point.error)),
      changed ? `; ${changed} of ${data.start.length} layers differ from the ${back.textContent.startsWith("Back") ? "plan" : "start"}` : "; the same schemes");
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  const cursor = (index) => {
    for (const group of document.querySelectorAll("[data-cursor]")) {
      const place = index === null ? null : data.places[group.dataset.cursor][index];
      group.style.display = place ? "" : "none";
      if (!place) continue;
      group.firstElementChild.setAttribute("transform", `translate(${place[0]} 0)`);
      group.lastElementChild.setAttribute("cx", place[0]);
      group.lastElementChild.setAttribute("cy", place[1]);
    }
  };
  const reset = () => { slider.value = home; if (choice !== data.start) draw(data.start); cursor(null); back.disabled = true; say(data.points[home]); };
  slider.addEventListener("input", () => { const index = Number(slider.value); draw(data.points[index].choice); say(data.points[index]); cursor(index); back.disabled = false; });
  for (const svg of document.querySelectorAll("#frontier .plot")) {
    svg.addEventListener("click", (event) => {
      const places = data.places[svg.classList.contains("wide") ? "wide" : "narrow"];
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const away = (index) => (places[index] ? Math.abs(places[index][0] - x) : Infinity);
      slider.value = places.reduce((best, _, index) => (away(index) < away(best) ? index : best), 0);
      slider.dispatchEvent(new Event("input"));
    });
  }
  back.addEventListener("click", () => { reset(); slider.focus(); });
  reset();
}

/* A column of the bits plot that is pointed at is read below it. */
const barsReading = document.querySelector("[data-bars-reading]");
for (const svg of document.querySelectorAll(".bars")) {
  svg.addEventListener("pointerover", (event) => {
    const rect = event.target.closest("rect");
    if (!rect) return;
    const layer = [...rect.parentNode.children].indexOf(rect);
    const bytes = data.bytes[layer][choice[layer]];
    barsReading.textContent = `${data.names[layer]}: ${data.schemes[choice[layer]]}, ${((8 * bytes) / data.weights[layer]).toFixed(3)} bits per weight, ${whole(bytes)} bytes`;
  });
}
performance.mark("mpq-ready");
