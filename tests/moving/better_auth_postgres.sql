CREATE TABLE public.account (
    id text NOT NULL,
    "accountId" text NOT NULL,
    "providerId" text NOT NULL,
    "userId" text NOT NULL,
    "accessToken" text,
    "refreshToken" text,
    "idToken" text,
    "accessTokenExpiresAt" timestamp with time zone,
    "refreshTokenExpiresAt" timestamp with time zone,
    scope text,
    password text,
    "createdAt" timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp with time zone NOT NULL
);
CREATE TABLE public.apikey (
    id text NOT NULL,
    "configId" text NOT NULL,
    name text,
    start text,
    "referenceId" text NOT NULL,
    prefix text,
    key text NOT NULL,
    "refillInterval" integer,
    "refillAmount" integer,
    "lastRefillAt" timestamp with time zone,
    enabled boolean,
    "rateLimitEnabled" boolean,
    "rateLimitTimeWindow" integer,
    "rateLimitMax" integer,
    "requestCount" integer,
    remaining integer,
    "lastRequest" timestamp with time zone,
    "expiresAt" timestamp with time zone,
    "createdAt" timestamp with time zone NOT NULL,
    "updatedAt" timestamp with time zone NOT NULL,
    permissions text,
    metadata text
);
CREATE TABLE public.invitation (
    id text NOT NULL,
    "organizationId" text NOT NULL,
    email text NOT NULL,
    role text,
    status text NOT NULL,
    "expiresAt" timestamp with time zone NOT NULL,
    "createdAt" timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "inviterId" text NOT NULL
);
CREATE TABLE public.jwks (
    id text NOT NULL,
    "publicKey" text NOT NULL,
    "privateKey" text NOT NULL,
    "createdAt" timestamp with time zone NOT NULL,
    "expiresAt" timestamp with time zone,
    alg text,
    crv text
);
CREATE TABLE public.member (
    id text NOT NULL,
    "organizationId" text NOT NULL,
    "userId" text NOT NULL,
    role text NOT NULL,
    "createdAt" timestamp with time zone NOT NULL
);
CREATE TABLE public.organization (
    id text NOT NULL,
    name text NOT NULL,
    slug text NOT NULL,
    logo text,
    "createdAt" timestamp with time zone NOT NULL,
    metadata text
);
CREATE TABLE public.session (
    id text NOT NULL,
    "expiresAt" timestamp with time zone NOT NULL,
    token text NOT NULL,
    "createdAt" timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp with time zone NOT NULL,
    "ipAddress" text,
    "userAgent" text,
    "userId" text NOT NULL,
    "impersonatedBy" text,
    "activeOrganizationId" text
);
CREATE TABLE public."user" (
    id text NOT NULL,
    name text NOT NULL,
    email text NOT NULL,
    "emailVerified" boolean NOT NULL,
    image text,
    "createdAt" timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    role text,
    banned boolean,
    "banReason" text,
    "banExpires" timestamp with time zone
);
CREATE TABLE public.verification (
    id text NOT NULL,
    identifier text NOT NULL,
    value text NOT NULL,
    "expiresAt" timestamp with time zone NOT NULL,
    "createdAt" timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);
INSERT INTO public.account VALUES ('GNZnsQ3MOhK8nYuyXKfDzIx1CbgNvSGh', 'crSwAilJ3lKFc6y3v5trju89MWDgF597', 'credential', 'crSwAilJ3lKFc6y3v5trju89MWDgF597', NULL, NULL, NULL, NULL, NULL, NULL, '928915a374468142bbb5aa0078d42834:9d32c245fa412432fc03538438a5be765c71f6a995945a108ed0c6d3398cee6e5ef626f5439d86953924bf9418e11fb02f001af568f8b1b944bfd5cfa6791ca8', '2026-11-28 11:43:47.077+00', '2026-11-28 11:43:47.077+00');
INSERT INTO public.account VALUES ('GzEuaYafdbFzIPYOU712oLDelb2Fi476', '5orG4g48xdaWX8ZGXSaCzWiCNuXdi9vL', 'credential', '5orG4g48xdaWX8ZGXSaCzWiCNuXdi9vL', NULL, NULL, NULL, NULL, NULL, NULL, 'd1dc7364611182c5be1288d9deacaf2e:c57eb123eeea8b173ea95a660ac79a72412f5b4c058985fc888927c579fa0a33f7c1face229715f3a937aa74eb0de232f4c77888ec82d47ec263c57bd7d76264', '2026-11-28 11:43:47.683+00', '2026-11-28 11:43:47.683+00');
INSERT INTO public.account VALUES ('CItmIobWCnGARW6AiAvqWH5kJVThgMRI', 'MH1HTNGSY03jzItV6nMSg05pwv9hRYGt', 'credential', 'MH1HTNGSY03jzItV6nMSg05pwv9hRYGt', NULL, NULL, NULL, NULL, NULL, NULL, 'aaa841e229b561326a0c9bb9b82220d5:6b58affaa1533a163fcd074dd156545bbc7db84f3c8cb329646b4ead6706b6c42c5a5960700fb79551176575010729208db42da09c114ca5fe570288f4c676a4', '2026-11-28 11:43:48.521+00', '2026-11-28 11:43:48.521+00');
INSERT INTO public.account VALUES ('Hls024GPECdmcP2PIYMtEoKnId9mSsWx', '4711', 'github', 'hiBg636yIJde2aLQIKmx0zUSnME9jqKp', 'throw-away', NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-28 11:43:48.551+00', '2026-11-28 11:43:48.551+00');
INSERT INTO public.apikey VALUES ('qmqnlK6j4nTFyY2xMUzKjXnkecsSDo4V', 'default', NULL, 'dAapIB', 'crSwAilJ3lKFc6y3v5trju89MWDgF597', NULL, 'QGQWbtbZP726PVpZF_doHJhc5Bgyi9Szp2GNinx648Y', NULL, NULL, NULL, true, true, 86400000, 10, 0, NULL, NULL, NULL, '2026-11-28 11:43:48.62+00', '2026-11-28 11:43:48.62+00', NULL, 'null');
INSERT INTO public.apikey VALUES ('UHudBcIqLrdsGcDyJ5e1DmhoBxrU9Nky', 'default', 'no limit', 'IbfXBt', '5orG4g48xdaWX8ZGXSaCzWiCNuXdi9vL', NULL, 'jXhAqKtSgh8AS5qA7oCX_ioRS9hPFgiK2WzecEGA5gA', NULL, NULL, NULL, true, false, 86400000, 10, 0, NULL, NULL, NULL, '2026-11-28 11:43:48.642+00', '2026-11-28 11:43:48.642+00', NULL, 'null');
INSERT INTO public.apikey VALUES ('BfxtMgpHrPcoRUlNDaLSbWsImAlCKrCk', 'default', NULL, 'kElHBO', 'MH1HTNGSY03jzItV6nMSg05pwv9hRYGt', NULL, 'kvY8Vd-MxBNWagv4F4TstM7lFSnd5Q6seHwLt4ORweU', NULL, NULL, NULL, true, false, 86400000, 10, 0, NULL, NULL, NULL, '2026-11-28 11:43:48.659+00', '2026-11-28 11:43:48.659+00', NULL, 'null');
INSERT INTO public.apikey VALUES ('KCHV5oJ2nMSGXxS4TjAGHuvGXABeZ5ao', 'default', NULL, 'kb_zKm', '5orG4g48xdaWX8ZGXSaCzWiCNuXdi9vL', 'kb_', 'jlUg61iFmlBHmI2gW74fAPyAVjiFwt8bdx00pjmxdDU', NULL, NULL, NULL, true, false, 86400000, 10, 0, NULL, NULL, NULL, '2026-11-28 11:43:48.673+00', '2026-11-28 11:43:48.673+00', NULL, 'null');
INSERT INTO public.apikey VALUES ('KsbLICsaGmYoFZJQpv3mtexuNRlFGlqZ', 'default', NULL, 'lgMoKs', 'crSwAilJ3lKFc6y3v5trju89MWDgF597', NULL, 'HnriA1kEjRackTGkbvXa7N7twT-y5zU-JaVay1jU11g', NULL, NULL, NULL, true, true, 86400000, 10, 0, NULL, NULL, NULL, '2026-11-28 11:43:48.68+00', '2026-11-28 11:43:48.68+00', '{"Files":["readAll"]}', 'null');
INSERT INTO public.apikey VALUES ('h163fkJePazgetn0RBPVrXr3rmhf5o2C', 'team', NULL, 'team_y', 'd6q8Hn2PJEOFrrIoE4nqsrHyIGJzf90W', 'team_', 'I9WBZIUSlKxwOL8EPJHh_dlbGopGo7GqCSZvZ3-4laI', NULL, NULL, NULL, true, true, 86400000, 10, 0, NULL, NULL, NULL, '2026-11-28 11:43:48.747+00', '2026-11-28 11:43:48.747+00', NULL, 'null');
INSERT INTO public.apikey VALUES ('KeG2WnHN1f6Q9aBUqFIh2oyV9yrukFNj', 'default', 'off', 'zfvTib', '5orG4g48xdaWX8ZGXSaCzWiCNuXdi9vL', NULL, 'mIpHavmtnKPz_gVZ_D3yuk96XC82klyJ2VoOXrGOWSs', NULL, NULL, NULL, false, false, 86400000, 10, 0, NULL, NULL, NULL, '2026-11-28 11:43:48.652+00', '2026-11-28 11:43:48.652+00', NULL, 'null');
INSERT INTO public.apikey VALUES ('Edi3gLAm4fbdofkLpoMaIPGZzd0bNBdK', 'default', 'deploy', 'acme_Y', 'crSwAilJ3lKFc6y3v5trju89MWDgF597', 'acme_', 'pvd2FA8XdgIQpxJ96TOcsvP2m2Ao6XJrPcChTKhWGdM', 3600000, 10, NULL, true, true, 60000, 7, 1, 4, '2026-11-28 11:43:48.813+00', '2027-09-24 11:43:48.634+00', '2026-11-28 11:43:48.634+00', '2026-11-28 11:43:48.836+00', '{"files":["read","write"],"deploy":["run"]}', '{"plan":"pro","seats":[1,2,{"three":null}]}');
INSERT INTO public.apikey VALUES ('KZNQgX9fXDPg68EERddd8iFMyjLWIENm', 'default', NULL, 'ffAtLN', 'hPNC0AHkMvJGiR5tT1psaorpLcHwyvu2', NULL, 'rVjy_T6smWv0IhzmOoNaZa8zJTnQR5AUhFUafhizF_Q', NULL, NULL, NULL, true, true, 86400000, 10, 0, NULL, NULL, NULL, '2026-11-28 11:43:48.89+00', '2026-11-28 11:43:48.89+00', NULL, 'null');
INSERT INTO public.member VALUES ('4qnSvjncR5roOgxlJJX2tbbwFBHWyuy1', 'd6q8Hn2PJEOFrrIoE4nqsrHyIGJzf90W', 'crSwAilJ3lKFc6y3v5trju89MWDgF597', 'owner', '2026-11-28 11:43:48.605+00');
INSERT INTO public.organization VALUES ('d6q8Hn2PJEOFrrIoE4nqsrHyIGJzf90W', 'Engines', 'engines', NULL, '2026-11-28 11:43:48.604+00', NULL);
INSERT INTO public.session VALUES ('DXhOPpRrqA6FzbzguZikH0R4jUxVUJwA', '2026-12-05 11:43:47.687+00', 'ZTJW9yRtHGeaVSoomVCS1MLREMZTTdTK', '2026-11-28 11:43:47.687+00', '2026-11-28 11:43:47.687+00', '', '', '5orG4g48xdaWX8ZGXSaCzWiCNuXdi9vL', NULL, NULL);
INSERT INTO public.session VALUES ('qr1QK3rDj8UpPuxAssg93fmrDO0mulM2', '2026-12-05 11:43:48.523+00', 'aYJJedjzyz11tuMTLmBJwNolIxz2E6q4', '2026-11-28 11:43:48.523+00', '2026-11-28 11:43:48.523+00', '', '', 'MH1HTNGSY03jzItV6nMSg05pwv9hRYGt', NULL, NULL);
INSERT INTO public.session VALUES ('3AUEEqEBugrITU5tVbBhVUqr9qSg9vii', '2026-12-05 11:43:47.079+00', 'Qo5QwolKBRObAuz1PCCCwBJbFd6lTGnB', '2026-11-28 11:43:47.079+00', '2026-11-28 11:43:48.607+00', '', '', 'crSwAilJ3lKFc6y3v5trju89MWDgF597', NULL, 'd6q8Hn2PJEOFrrIoE4nqsrHyIGJzf90W');
INSERT INTO public."user" VALUES ('crSwAilJ3lKFc6y3v5trju89MWDgF597', 'ada', 'ada@example.com', true, NULL, '2026-11-28 11:43:47.068+00', '2026-11-28 11:43:48.538+00', 'admin', false, NULL, NULL);
INSERT INTO public."user" VALUES ('5orG4g48xdaWX8ZGXSaCzWiCNuXdi9vL', 'grace', 'grace@example.com', true, NULL, '2026-11-28 11:43:47.676+00', '2026-11-28 11:43:48.543+00', 'user', false, NULL, NULL);
INSERT INTO public."user" VALUES ('MH1HTNGSY03jzItV6nMSg05pwv9hRYGt', 'mallory', 'mallory@example.com', true, NULL, '2026-11-28 11:43:48.519+00', '2026-11-28 11:43:48.544+00', 'user', true, NULL, NULL);
INSERT INTO public."user" VALUES ('hiBg636yIJde2aLQIKmx0zUSnME9jqKp', 'Only Mail', 'only@example.com', true, NULL, '2026-11-28 11:43:48.548+00', '2026-11-28 11:43:48.548+00', 'user', false, NULL, NULL);
ALTER TABLE ONLY public.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.apikey
    ADD CONSTRAINT apikey_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT invitation_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.jwks
    ADD CONSTRAINT jwks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.member
    ADD CONSTRAINT member_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.organization
    ADD CONSTRAINT organization_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.organization
    ADD CONSTRAINT organization_slug_key UNIQUE (slug);
ALTER TABLE ONLY public.session
    ADD CONSTRAINT session_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.session
    ADD CONSTRAINT session_token_key UNIQUE (token);
ALTER TABLE ONLY public."user"
    ADD CONSTRAINT user_email_key UNIQUE (email);
ALTER TABLE ONLY public."user"
    ADD CONSTRAINT user_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.verification
    ADD CONSTRAINT verification_pkey PRIMARY KEY (id);
CREATE INDEX "account_userId_idx" ON public.account USING btree ("userId");
CREATE INDEX "apikey_configId_idx" ON public.apikey USING btree ("configId");
CREATE INDEX apikey_key_idx ON public.apikey USING btree (key);
CREATE INDEX "apikey_referenceId_idx" ON public.apikey USING btree ("referenceId");
CREATE INDEX invitation_email_idx ON public.invitation USING btree (email);
CREATE INDEX "invitation_organizationId_idx" ON public.invitation USING btree ("organizationId");
CREATE INDEX "member_organizationId_idx" ON public.member USING btree ("organizationId");
CREATE INDEX "member_userId_idx" ON public.member USING btree ("userId");
CREATE INDEX "session_userId_idx" ON public.session USING btree ("userId");
CREATE INDEX verification_identifier_idx ON public.verification USING btree (identifier);
ALTER TABLE ONLY public.account
    ADD CONSTRAINT "account_userId_fkey" FOREIGN KEY ("userId") REFERENCES public."user"(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT "invitation_inviterId_fkey" FOREIGN KEY ("inviterId") REFERENCES public."user"(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.invitation
    ADD CONSTRAINT "invitation_organizationId_fkey" FOREIGN KEY ("organizationId") REFERENCES public.organization(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.member
    ADD CONSTRAINT "member_organizationId_fkey" FOREIGN KEY ("organizationId") REFERENCES public.organization(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.member
    ADD CONSTRAINT "member_userId_fkey" FOREIGN KEY ("userId") REFERENCES public."user"(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.session
    ADD CONSTRAINT "session_userId_fkey" FOREIGN KEY ("userId") REFERENCES public."user"(id) ON DELETE CASCADE;
