// Draws the charts of a report with Plotly, in the reader's colours, and again whenever the reader chooses differently.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const charts = new Map(data.charts.map((chart) => [chart.key, chart]));
  const touch = matchMedia("(pointer: coarse)").matches;
  const drawn = new Set();
  const state = { over: "updates", window: data.window, hidden: new Set(), logarithmic: new Set() };
  for (const chart of data.charts) if (chart.log) state.logarithmic.add(chart.key);

  const place = (key) => document.querySelector(`[data-chart="${key}"]`);
  const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const visible = (meta) =>
    (meta.window === undefined || meta.window === state.window) && !meta.tags.some((tag) => state.hidden.has(tag));

  function traces(chart) {
    return chart.traces.filter((trace) => visible(trace.meta)).map((trace) => {
      const { meta } = trace;
      const colour = meta.colour === null ? shade("ink") : shade(`run-${meta.colour}`);
      const x = chart.over === "" && state.over === "seconds" ? meta.seconds : trace.x;
      const shown = { hovertemplate: "%{y} at %{x}<extra>%{fullData.name}</extra>", ...trace, x };
      if (trace.type === "heatmap") return shown;
      if (trace.line) shown.line = { ...trace.line, color: colour };
      shown.marker = { color: colour, size: 5, ...trace.marker };
      if (shown.marker.line) shown.marker.line = { ...shown.marker.line, color: colour };
      return shown;
    });
  }

  // Labels at 1, 2 and 5 while the curves span few powers of ten, at whole powers when they span many.
  function decade(chart) {
    const values = traces(chart).flatMap((trace) => trace.y).filter((value) => value > 0);
    const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, 0]);
    const span = Math.log10(high / low);
    return span < 2.5 || !Number.isFinite(span) ? "D2" : Math.ceil(span / 7);
  }

  function layout(chart) {
    const logarithmic = state.logarithmic.has(chart.key);
    const over = chart.over || state.over;
    const axis = { exponentformat: "power", gridcolor: shade("line"), zerolinecolor: shade("faint"), zeroline: false };
    const x = { ...axis, title: { text: over }, nticks: 6, hoverformat: over === "seconds" ? ",.1f" : ",d" };
    const y = { ...axis, automargin: true, hoverformat: ".4~g", ...chart.layout.yaxis };
    if (logarithmic) Object.assign(y, { type: "log", range: undefined, autorange: true, dtick: decade(chart), minorloglabels: "complete" });
    const bar = { orientation: "h", x: 0.5, y: 1, xanchor: "center", yanchor: "bottom", thickness: 9, len: 0.6, nticks: 5 };
    const top = touch ? 12 : 30; // room for the tool bar, so that it covers no curve
    return {
      ...chart.layout, xaxis: x, yaxis: y, showlegend: false, hovermode: "closest", dragmode: touch ? false : "zoom",
      margin: { l: 48, r: 14, t: chart.layout.coloraxis ? 44 : top, b: 44 }, uirevision: `${over} ${logarithmic}`,
      paper_bgcolor: shade("card"), plot_bgcolor: shade("card"),
      font: { color: shade("ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
      hoverlabel: { bgcolor: shade("card"), bordercolor: shade("faint"), font: { color: shade("ink") } },
      ...(chart.layout.coloraxis && { coloraxis: { ...chart.layout.coloraxis, colorbar: bar } }),
    };
  }

  function draw(key) {
    drawn.add(key);
    const more = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover",
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]], toImageButtonOptions: { filename: key, scale: 2 } };
    return Plotly.react(place(key), traces(charts.get(key)), layout(charts.get(key)), more);
  }
  const redraw = () => drawn.forEach(draw);

  function quoted(value) {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv(chart) {
    const plain = (text) => new DOMParser().parseFromString(text, "text/html").documentElement.textContent;
    const lines = [["series", chart.over || state.over, chart.title, "staleness", "text"]];
    for (const trace of traces(chart)) {
      const name = plain(trace.name);
      if (trace.type === "heatmap") {
        trace.z.forEach((line, row) => line.forEach((value, column) =>
          value !== null && lines.push([name, trace.x[column], trace.y[row] + 0.5, value, ""])));
      } else if (trace.hoverinfo !== "skip") {
        const staleness = Array.isArray(trace.marker.color) ? trace.marker.color : [];
        trace.x.forEach((x, index) => lines.push([name, x, trace.y[index], staleness[index], plain(trace.text?.[index] ?? "")]));
      }
    }
    return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
  }

  function save(key) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv(charts.get(key))], { type: "text/csv" }));
    link.download = `${key}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function picture(key) {
    const { width, height } = place(key).getBoundingClientRect();
    return Plotly.downloadImage(place(key), { format: "png", filename: key, scale: 2, width, height });
  }

  function press(button, on) {
    button.setAttribute("aria-pressed", String(on));
    state.hidden[on ? "delete" : "add"](button.dataset.tag);
  }

  function listen() {
    document.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button === null) return;
      const { csv: numbers, png, tag, every } = button.dataset;
      if (numbers) save(numbers);
      if (png) picture(png);
      if (tag) press(button, button.getAttribute("aria-pressed") === "false");
      if (every) document.querySelectorAll('[data-tag^="run:"]').forEach((one) => press(one, every === "show"));
      if (tag || every) redraw();
    });
    document.addEventListener("change", ({ target }) => {
      if (target.dataset.choose === "window") state.window = Number(target.value);
      if (target.dataset.choose === "over") state.over = target.value;
      if (target.dataset.log) state.logarithmic[target.checked ? "add" : "delete"](target.dataset.log);
      redraw();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    addEventListener("beforeprint", () => charts.forEach((_, key) => draw(key)));
  }

  function start() {
    document.body.classList.add("live");
    listen();
    // A chart is drawn when it comes near the screen: pages of many runs open at once, and folded ones wait.
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting && !drawn.has(one.target.dataset.chart))) {
        draw(entry.target.dataset.chart);
      }
    }, { rootMargin: "800px" });
    for (const [key, chart] of charts) {
      if (chart.layout.height) place(key).style.height = `${chart.layout.height}px`;
      near.observe(place(key));
    }
  }

  addEventListener("error", ({ message }) => {
    const trouble = document.getElementById("trouble");
    trouble.hidden = false;
    trouble.textContent = `The curves could not be drawn: ${message}. The picture that lies beside this page shows them.`;
  });
  start();
})();
