// The card of API keys of Better Auth's component library, and nothing else.

import { apiKeyClient } from "@better-auth/api-key/client";
import { ApiKeysCard, AuthUIProvider } from "@daveyplate/better-auth-ui";
import { createAuthClient } from "better-auth/react";
import { createRoot } from "react-dom/client";
import { Toaster } from "sonner";

const authClient = createAuthClient({ plugins: [apiKeyClient()] });

createRoot(document.getElementById("root")).render(
  <AuthUIProvider authClient={authClient} apiKey>
    <ApiKeysCard />
    <Toaster />
  </AuthUIProvider>,
);
