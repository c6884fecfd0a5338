/** Messages of `proto/`, as far as they are read or written here. Names as they stand there. */

export interface CheckRequest {
  readonly control_point: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly cache_lookup_request: CacheLookupRequest | null;
}

export interface Duration {
  readonly seconds: number;
  readonly nanos: number;
}

export interface LimiterDecision {
  readonly policy_name: string;
  readonly policy_hash: string;
  readonly component_id: string;
  readonly dropped: boolean;
  readonly rate_limiter_info?: object;
  readonly quota_scheduler_info?: object;
  readonly concurrency_limiter_info?: object;
  readonly concurrency_scheduler_info?: object;
}

export interface CheckResponse {
  readonly start: Duration;
  readonly end: Duration;
  readonly control_point: string;
  readonly flow_label_keys: readonly string[];
  readonly telemetry_flow_labels: Readonly<Record<string, string>>;
  readonly decision_type: 'DECISION_TYPE_ACCEPTED' | 'DECISION_TYPE_REJECTED';
  readonly reject_reason?: RejectReason;
  readonly limiter_decisions?: readonly LimiterDecision[];
  readonly wait_time?: Duration;
  readonly denied_response_status_code?: number;
  readonly cache_lookup_response?: CacheLookupResponse;
  readonly expect_end?: boolean;
}

export type RejectReason =
  | 'REJECT_REASON_NONE'
  | 'REJECT_REASON_RATE_LIMITED'
  | 'REJECT_REASON_NO_TOKENS';

export interface InflightRequestRef {
  readonly request_id: string;
  readonly tokens: number;
}

export interface FlowEndRequest {
  readonly inflight_requests: readonly InflightRequestRef[];
}

export interface FlowEndResponse {
  readonly token_return_statuses: readonly {
    readonly inflight_request_ref: InflightRequestRef;
    readonly returned: boolean;
    readonly error: string;
  }[];
}

export interface ExportRequest {
  readonly resource_spans: readonly {
    readonly scope_spans: readonly { readonly spans: readonly Span[] }[];
  }[];
}

export interface Span {
  readonly end_time_unix_nano: number;
  readonly attributes: readonly {
    readonly key: string;
    readonly value: { readonly string_value: string } | null;
  }[];
}

export interface CacheLookupRequest {
  readonly control_point: string;
  readonly result_cache_key: string;
  readonly global_cache_keys: readonly string[];
}

export type OperationStatus = 'SUCCESS' | 'ERROR';

export interface KeyLookup {
  readonly value: Buffer;
  readonly lookup_status: 'HIT' | 'MISS';
  readonly operation_status: OperationStatus;
  readonly error: string;
}

export interface CacheLookupResponse {
  readonly result_cache_response?: KeyLookup;
  readonly global_cache_responses: Readonly<Record<string, KeyLookup>>;
}

export interface CacheEntry {
  readonly key: string;
  readonly value: Buffer;
  readonly ttl: Duration | null;
}

export interface CacheUpsertRequest {
  readonly control_point: string;
  readonly result_cache_entry: CacheEntry | null;
  readonly global_cache_entries: Readonly<Record<string, CacheEntry>>;
}

export interface CacheDeleteRequest {
  readonly control_point: string;
  readonly result_cache_key: string;
  readonly global_cache_keys: readonly string[];
}

export interface KeyChange {
  readonly operation_status: OperationStatus;
  readonly error: string;
}

export interface CacheChangeResponse {
  readonly result_cache_response?: KeyChange;
  readonly global_cache_responses: Readonly<Record<string, KeyChange>>;
}
