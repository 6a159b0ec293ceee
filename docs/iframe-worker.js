// Search where the site is opened from the disk: browsers start no worker there, so the worker's
// script runs in a hidden frame. The theme looks for this name.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = "<!doctype html>"; // of the page's own origin
      const loaded = new Promise((done) => this.frame.addEventListener("load", done));
      document.documentElement.append(this.frame);
      this.ready = loaded.then(() => this.begin(new URL(url, location.href).href));
    }

    async begin(url) {
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) => Promise.all(urls.map((each) => run(inside, each)));
      await run(inside, url);
      return inside;
    }

    async postMessage(data) {
      const inside = await this.ready;
      inside.dispatchEvent(new inside.MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}

function run(inside, url) {
  return new Promise((done, failed) => {
    const script = inside.document.createElement("script");
    script.onload = done;
    script.onerror = () => failed(new Error(`${url} can't be loaded`));
    script.src = url;
    inside.document.body.append(script);
  });
}
