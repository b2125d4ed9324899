// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Numbers and times as people read them.

export const usd = (v: number, digits = 2) => '$' + v.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
export const percent = (v: number, digits = 0) => (v * 100).toFixed(digits) + '%'
export const cores = (milli: number) => (milli / 1000).toLocaleString('en', { maximumFractionDigits: milli < 10000 ? 1 : 0 })
export const share = (u: { requested: number; allocatable: number }) => (u.allocatable > 0 ? u.requested / u.allocatable : 0)

export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let i = 0
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++ }
  return n.toLocaleString('en', { maximumFractionDigits: n < 10 && i > 0 ? 1 : 0 }) + ' ' + units[i]
}

export function age(from: string | number, to: string | number): string {
  let s = Math.max(0, Math.round((+new Date(to) - +new Date(from)) / 1000))
  if (s < 120) return s + ' s'
  s = Math.round(s / 60)
  if (s < 120) return s + ' min'
  s = Math.round(s / 60)
  return s < 72 ? s + ' h' : Math.round(s / 24) + ' d'
}

const pad = (n: number) => String(n).padStart(2, '0')
export const clock = (t: string | number) => { const d = new Date(t); return pad(d.getHours()) + ':' + pad(d.getMinutes()) }
export const moment = (t: string | number) => {
  const d = new Date(t)
  return d.toLocaleDateString('en', { weekday: 'short', day: 'numeric', month: 'short' }) + ' ' + clock(t) + ':' + pad(d.getSeconds())
}

export const short = (size?: string) => (size ?? '').replace(/^Standard_/, '')
export const poolOf = (n: { pool?: string }) => n.pool || 'agent pools'
export const zoneOf = (n: { zone?: string }) => (n.zone && n.zone !== '0' ? n.zone : 'regional')
export const plural = (n: number, what: string) => n.toLocaleString('en') + ' ' + what + (n === 1 ? '' : 's')
