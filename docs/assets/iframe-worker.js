// Lets the search run in pages that are opened as files, where browsers refuse workers: it runs in a hidden frame.
"use strict";

if (location.protocol === "file:") {
  const load = (frame, source) =>
    new Promise((resolve, reject) => {
      const script = frame.document.createElement("script");
      Object.assign(script, { src: source, onload: resolve, onerror: reject });
      frame.document.body.append(script);
    });

  // The theme's search looks for a class of this name, which takes the place of Worker.
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.element = document.createElement("iframe");
      this.element.hidden = true;
      document.body.append(this.element);
      const frame = this.element.contentWindow;
      frame.document.open();
      frame.document.write("<body></body>");
      frame.document.close();
      frame.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      frame.importScripts = (...sources) =>
        sources.reduce((earlier, source) => earlier.then(() => load(frame, source)), Promise.resolve());
      this.frame = frame;
      this.loaded = load(frame, url);
    }

    postMessage(data) {
      this.loaded.then(() => this.frame.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.element.remove();
    }
  }

  window.IFrameWorker = window.Worker = IFrameWorker;
}
