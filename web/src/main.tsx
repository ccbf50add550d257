import { setLogLevel } from 'livekit-client'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './App'
import { Library } from './components/Library'
import { Register } from './components/Register'
import { installHook } from './hook'
import { takeToken } from './library'
import { parseParams, type Params } from './params'
import './styles.css'

setLogLevel('warn')
installHook()
const params = parseParams(location.search)

/** What the address asks for: a room's recordings, a form to register, or a meeting. */
function Page({ params }: { params: Params }) {
  if (params.recordings) return <Library room={params.recordings} token={token} />
  if (params.register) return <Register room={params.register} token={token} />
  return <App params={params} />
}

const token = params.recordings || params.register ? takeToken() : ''
createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Page params={params} />
  </StrictMode>,
)
