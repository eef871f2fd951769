// Where people write. Owns the draft and its files; a file travels as soon as it is added, the message when it is sent.
// Knows nothing of the conversation: the server shows what was said.

const ICONS = {
  attach: "M21 11.5l-8.6 8.6a5.5 5.5 0 0 1-7.8-7.8l8.9-8.9a3.7 3.7 0 0 1 5.2 5.2l-8.9 8.9a1.8 1.8 0 0 1-2.6-2.6l8.2-8.2",
  send: "M12 20V5M5.5 11.5L12 5l6.5 6.5",
};
const isTouch = matchMedia("(pointer: coarse)");
const DRAFT = "commedia-draft";

export default {
  props: { label: String, answering: Boolean, maxFiles: Number, maxFileBytes: Number },
  emits: ["stop"],
  template: `
    <div class="composer" :class="{ dropping }">
      <div class="drop-here" v-if="dropping" aria-hidden="true"><span>Drop it here</span></div>
      <form @submit.prevent="send">
        <p class="trouble" role="alert" v-if="trouble">{{ trouble }}</p>
        <ul class="previews" v-if="files.length" aria-label="Pictures to send">
          <li v-for="file in files" :key="file.key" :class="{ busy: !file.id }">
            <img v-if="file.url" :src="file.url" :alt="file.name" @error="file.url = null" />
            <span v-else class="file-name">{{ file.name }}</span>
            <button type="button" @click="remove(file)" :aria-label="'Remove ' + file.name">×</button>
          </li>
        </ul>
        <div class="line">
          <button type="button" class="icon" @click="$refs.picker.click()" :aria-label="attachLabel" :title="attachLabel">
            <svg viewBox="0 0 24 24" aria-hidden="true"><path :d="icons.attach" /></svg>
          </button>
          <input type="file" ref="picker" accept="image/*,.json,.charx" multiple hidden @change="pick" />
          <textarea ref="text" rows="1" v-model="text" :placeholder="label" :aria-label="label" dir="auto" maxlength="20000"
            @keydown.enter="enter" @paste="paste"></textarea>
          <button v-if="answering" type="button" class="round stop" @click="$emit('stop')"
            aria-label="Stop the answer" title="Stop the answer"><i></i></button>
          <button v-if="!answering || canSend" type="submit" class="round" :disabled="!canSend" aria-label="Send" title="Send">
            <svg viewBox="0 0 24 24" aria-hidden="true"><path :d="icons.send" /></svg>
          </button>
        </div>
      </form>
    </div>`,
  data() {
    return { text: "", files: [], trouble: "", dropping: false, sending: false, icons: ICONS };
  },
  computed: {
    most() {
      return this.maxFiles === 1 ? "one picture" : `${this.maxFiles} pictures`;
    },
    attachLabel() {
      return `Add a picture (at most ${this.most})`;
    },
    canSend() {
      return !this.sending && this.files.every((file) => file.id) && Boolean(this.text.trim() || this.files.length);
    },
  },
  watch: {
    text() {
      sessionStorage.setItem(DRAFT, this.text);
      this.$nextTick(this.grow);
    },
  },
  mounted() {
    this.numAdded = 0;
    this.depth = 0;
    this.text = sessionStorage.getItem(DRAFT) || "";
    this.listeners = { dragenter: this.dragIn, dragleave: this.dragOut, dragover: this.dragOver, drop: this.drop };
    for (const [name, listener] of Object.entries(this.listeners)) window.addEventListener(name, listener);
    if (!isTouch.matches) this.focus();
  },
  unmounted() {
    for (const [name, listener] of Object.entries(this.listeners)) window.removeEventListener(name, listener);
  },
  methods: {
    focus() {
      this.$refs.text.focus();
    },
    grow() {
      const area = this.$refs.text;
      area.style.height = "auto";
      area.style.height = `${area.scrollHeight}px`;
    },
    enter(event) {
      // An input method's Enter picks a word; a phone's keyboard has no Shift+Enter.
      const wantsLine = event.shiftKey || event.isComposing || event.keyCode === 229;
      if (wantsLine || isTouch.matches) return;
      event.preventDefault();
      this.send();
    },
    pick(event) {
      this.add(event.target.files);
      event.target.value = "";
      this.focus();
    },
    paste(event) {
      if (!event.clipboardData.files.length) return;
      event.preventDefault();
      this.add(event.clipboardData.files);
    },
    hasFiles(event) {
      return [...(event.dataTransfer?.types || [])].includes("Files");
    },
    dragIn(event) {
      if (this.hasFiles(event)) this.dropping = ++this.depth > 0;
    },
    dragOut(event) {
      if (this.hasFiles(event)) this.dropping = --this.depth > 0;
    },
    dragOver(event) {
      if (this.hasFiles(event)) event.preventDefault();
    },
    drop(event) {
      if (!this.hasFiles(event)) return;
      event.preventDefault();
      this.depth = 0;
      this.dropping = false;
      this.add(event.dataTransfer.files);
      this.focus();
    },
    add(chosen) {
      this.trouble = "";
      for (const blob of chosen) {
        const name = blob.name || "picture";
        if (this.files.length >= this.maxFiles) {
          this.trouble = `At most ${this.most} in one message: the others are left out.`;
          return;
        }
        if (blob.size > this.maxFileBytes) {
          this.trouble = `${name} is too large: at most ${Math.floor(this.maxFileBytes / 2 ** 20)} MB, please.`;
          continue;
        }
        const url = blob.type.startsWith("image/") ? URL.createObjectURL(blob) : null;
        this.files.push({ key: ++this.numAdded, name, url, id: null });
        this.upload(this.files[this.files.length - 1], blob);
      }
    },
    async upload(file, blob) {
      try {
        const response = await fetch(`/upload?name=${encodeURIComponent(file.name)}`, {
          method: "POST",
          body: blob,
          headers: { "Content-Type": blob.type || "application/octet-stream" },
        });
        const answer = await response.json();
        if (!response.ok) throw new Error(answer.error || answer.detail);
        file.id = answer.id;
      } catch (error) {
        this.trouble = this.explain(error);
        this.dropPreview(file);
      }
    },
    remove(file) {
      this.trouble = "";
      this.dropPreview(file);
      if (file.id) fetch(`/upload/${file.id}`, { method: "DELETE" }).catch(() => {});
      this.focus();
    },
    dropPreview(file) {
      if (file.url) URL.revokeObjectURL(file.url);
      this.files = this.files.filter((other) => other.key !== file.key);
    },
    async send() {
      if (!this.canSend) return;
      this.sending = true;
      this.trouble = "";
      const text = this.text;
      const files = this.files;
      // At once: a command may take as long as a reply, and what is typed meanwhile is another message.
      this.text = "";
      try {
        const response = await fetch("/say", {
          method: "POST",
          body: JSON.stringify({ text, uploads: files.map((file) => file.id) }),
          headers: { "Content-Type": "application/json" },
        });
        if (!response.ok) {
          const answer = await response.json();
          throw new Error(answer.error || answer.detail);
        }
        files.forEach(this.dropPreview);
        if (!isTouch.matches) this.focus();
        this.$el.dispatchEvent(new CustomEvent("commedia-sent", { bubbles: true }));
      } catch (error) {
        this.text = [text, this.text].filter(Boolean).join("\n");
        this.trouble = this.explain(error);
      } finally {
        this.sending = false;
      }
    },
    explain(error) {
      if (error instanceof TypeError) return "The bot cannot be reached. Is it still running?";
      // The answer was no JSON: something broke before anybody could explain it.
      if (error instanceof SyntaxError) return "The bot could not take this. Its log says why.";
      return error.message.charAt(0).toUpperCase() + error.message.slice(1);
    },
  },
};
