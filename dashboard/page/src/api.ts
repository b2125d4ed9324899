// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// The answers of the API; see state.go and decision.go.

export interface Use { requested: number; allocatable: number }
export interface Bound { usdPerHour: number; cost: number; gap: number; pods: number; kind: string; time: string }
export interface Group { pool: string; size: string; zone: string; capacityType: string; count: number; usdPerHour: number }
export interface Stay { code: string; text: string }
export interface Node {
  name: string; claim?: string; pool?: string; size?: string; zone?: string; capacityType?: string
  usdPerHour: number; priced: boolean; phase: string; created: string; since: string
  cpu: Use; memory: Use; pods: number; image?: string; why?: string; stays: Stay; drift?: string; decision?: number
}
export interface Stage { name: string; detail?: string; reason?: string; offerings: number; nodes: number }
export interface Miss { what: string; reason: string; detail: string }
export interface Waiting {
  outcome: string; code?: string; reason: string; count: number; pods: string[]; since: string
  stages?: Stage[]; nearest?: Miss[]; node?: string
}
export interface Window { reason: string; from: string; to: string; allowed: number }
export interface Pool {
  name: string; nodes: number; usdPerHour: number; ready: boolean; policy: string; after: string; windows: Window[]; problem?: string
}
export interface State {
  version: number; time: string; cluster?: string; usdPerHour: number; unpriced: number; bound?: Bound
  pods: { running: number; pending: number; refused: number; assigned: number }
  cpu: Use; memory: Use; groups: Group[]; nodes: Node[]; waiting: Waiting[]
  quotas: { name: string; title?: string; used: number; limit: number }[]; pools: Pool[]
}
export interface Offering { size: string; zone?: string; capacityType?: string; usdPerHour: number }
export interface Bought extends Offering {
  claim?: string; pool: string; pods: number; podNames: string[]; alternatives?: Offering[]; alternativeCount: number
}
export interface Decision {
  id: number; time: string; kind: string; reason?: string; text: string; machines?: Bought[]; nodes?: string[]
  podsMoved: number; refused?: number; before: number; after: number
}
export interface Point { t: string; usd: number; bound: number; nodes: number; running: number; pending: number }
export interface Timeline { from: string; to: string; decisions: Decision[]; points: Point[] }
export interface NodeDetail { node: Node; pods: { name: string; owner?: string; cpu: number; memory: number; since: string }[]; bought?: Bought }

export class Denied extends Error {}

// get returns the answer of the API, undefined if there is nothing at this path.
export async function get<T>(path: string): Promise<T | undefined> {
  const res = await fetch(path, { credentials: 'same-origin' })
  if (res.ok) return (await res.json()) as T
  if (res.status === 404) return undefined
  const message = await res.json().then((b) => b.error as string, () => res.statusText)
  if (res.status === 401) throw new Denied(message)
  throw new Error(message)
}

// login exchanges a token for a session.
export async function login(token: string): Promise<void> {
  const res = await fetch('/api/v1/session', { method: 'POST', headers: { Authorization: 'Bearer ' + token.trim() } })
  const body = await res.json()
  if (!res.ok) throw new Error(body.error)
  location.href = body.path
}

export type Status = 'connecting' | 'live' | 'lost' | 'denied'

// follow calls back with each new state, at most one for each frame of the screen.
export function follow(onState: (s: State) => void, onStatus: (s: Status, message?: string) => void): () => void {
  let source: EventSource | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let busy = false
  let again = false
  let ended = false
  const load = async () => {
    if (busy) { again = true; return }
    busy = true
    try {
      const s = await get<State>('/api/v1/state')
      if (s && !ended) requestAnimationFrame(() => { onState(s); onStatus('live') })
    } catch (e) {
      if (e instanceof Denied) { close(); onStatus('denied', e.message) } else onStatus('lost', String(e instanceof Error ? e.message : e))
    }
    busy = false
    if (again && !ended) { again = false; void load() }
  }
  const close = () => { ended = true; source?.close(); clearTimeout(timer) }
  const open = () => {
    source = new EventSource('/api/v1/events')
    source.addEventListener('state', () => void load())
    source.onerror = () => {
      source?.close()
      if (ended) return
      onStatus('lost', 'the connection was lost; trying again')
      timer = setTimeout(() => { void load().then(() => { if (!ended) open() }) }, 2000)
    }
  }
  void load().then(() => { if (!ended) open() })
  return close
}
