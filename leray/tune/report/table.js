/* A table that sorts by any column. Where a row has no value it stands last, whichever way. */

class SortableTable {
  /* columns: { label, title, get(row), show(value, row), numeric, decorate(cell, row) } */
  constructor(parent, columns, rows) {
    this.columns = columns;
    this.order = { column: 0, descending: false };
    const table = make("table", parent);
    this.heads = columns.map((column, index) => this.head(column, index));
    const top = make("tr", make("thead", table));
    top.append(...this.heads.map(({ cell }) => cell));
    this.body = make("tbody", table);
    this.lines = rows.map((row) => ({ row, element: this.line(row) }));
    this.sort();
  }

  head(column, index) {
    const cell = make("th", null, column.numeric ? "numeric" : "");
    const button = make("button", cell, "", column.label);
    cell.scope = "col";
    button.type = "button";
    button.title = column.title ?? column.label;
    button.onclick = () => {
      const again = this.order.column === index;
      this.order = { column: index, descending: again && !this.order.descending };
      this.sort();
    };
    return { cell };
  }

  line(row) {
    const element = make("tr", this.body);
    for (const column of this.columns) {
      const value = column.get(row);
      const text = isMissing(value) ? "-" : column.show(value, row);
      const cell = make("td", element, column.numeric ? "numeric" : "", text);
      if (text.length > 24) cell.title = text;
      column.decorate?.(cell, row);
    }
    return element;
  }

  sort() {
    const { column, descending } = this.order;
    const get = this.columns[column].get;
    const sign = descending ? -1 : 1;
    const sorted = [...this.lines].sort((one, other) => {
      const [a, b] = [get(one.row), get(other.row)];
      if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
      return sign * compare(a, b);
    });
    this.body.append(...sorted.map(({ element }) => element));
    this.heads.forEach(({ cell }, index) => {
      const way = descending ? "descending" : "ascending";
      if (index === column) cell.setAttribute("aria-sort", way);
      else cell.removeAttribute("aria-sort");
    });
  }
}

const isMissing = (value) => value === undefined || value === null;

/* Numbers before texts, texts as people order them: trial_2 before trial_10. */
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a.localeCompare(b, "en", { numeric: true });
}

/* A number with at most four significant digits; whole numbers keep theirs. */
function brief(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= (Number.isInteger(value) ? 1e15 : 1e7))) {
    const [digits, power] = value.toExponential(3).split("e");
    return `${Number(digits)}e${Number(power)}`.replaceAll("-", "−");
  }
  return String(Number.isInteger(value) ? value : Number(value.toPrecision(4))).replace("-", "−");
}

const said = (value) => (typeof value === "number" ? brief(value) : value);
