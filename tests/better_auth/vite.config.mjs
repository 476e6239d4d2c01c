import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  root: "card",
  base: "/card/",
  plugins: [react()],
  build: { outDir: "../dist", emptyOutDir: true, minify: false, reportCompressedSize: false },
  logLevel: "warn",
});
