/** A thing that was acted upon; of the tenant of the token. `id` is stored in clear: never a name or a path. */
export interface RelayResource {
  readonly type: string;
  readonly id?: string;
  readonly name?: string;
  readonly path?: string;
}

/** What a page says of an action. Who, where and when are the relay's to say. */
export interface RelayFields {
  readonly outcome?: "success" | "failure" | "unknown";
  readonly resources?: readonly RelayResource[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly reason_code?: string;
}

/** An event as it is sent. */
export interface RelayEvent extends RelayFields {
  readonly event_id: string;
  readonly action: string;
  readonly client_time: string;
}

/** RFC 9457: what the relay found wrong. */
export interface RelayProblem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly errors?: readonly { readonly path: string; readonly rule: string; readonly detail: string }[];
}

/**
 * Events that will not be recorded, and why: `queue_full` and `too_large` when they are made, `refused` by the
 * relay (see `problem`), `expired`: not confirmed within `maxAgeMs`, `closed`: made after `close`.
 */
export interface Dropped {
  readonly events: readonly RelayEvent[];
  readonly reason: "queue_full" | "too_large" | "refused" | "expired" | "closed";
  readonly problem: RelayProblem | null;
}

export interface RelayOptions {
  /** Of the relay: `https://relay.acme.example/v1/relay/events`. */
  readonly url: string;
  /** The token, or what gives the current one; asked before each request. */
  readonly token: string | (() => string | Promise<string>);
  readonly onDropped?: (dropped: Dropped) => void;
  /** An event waits so long for others to go with; 2,000. */
  readonly flushIntervalMs?: number;
  /** 1 to 100; 50. */
  readonly batchEvents?: number;
  /** Of one request, and so of one event; 61,440. */
  readonly batchBytes?: number;
  /** More are dropped; 1,000. */
  readonly queueEvents?: number;
  /** First wait after a failed try, doubled each time; 1,000. */
  readonly retryFirstMs?: number;
  /** Longest wait, unless the relay asks for more; 60,000. */
  readonly retryMaxMs?: number;
  /** One request; 15,000. */
  readonly requestTimeoutMs?: number;
  /** An event that is not confirmed after so long is dropped; 600,000. Less than the relay's window. */
  readonly maxAgeMs?: number;
  /** What is used of the page, for tests; `globalThis`. */
  readonly page?: object;
}

export interface Relay {
  /** Events that the relay has not confirmed. */
  readonly pending: number;
  /** Take an event; its id. Never throws for what the relay may say of it: see `onDropped`. */
  record(action: string, fields?: RelayFields): string;
  /** Send now; how many events are not confirmed. */
  flush(): Promise<number>;
  /** Send, and take nothing more; how many events are not confirmed. */
  close(): Promise<number>;
}

/** A client of the relay for one page. What it sends twice is recorded once. */
export function createRelay(options: RelayOptions): Relay;
