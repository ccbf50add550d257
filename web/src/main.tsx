import { setLogLevel } from 'livekit-client'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './App'
import { installHook } from './hook'
import { parseParams } from './params'
import './styles.css'

setLogLevel('warn')
installHook()
createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <App params={parseParams(location.search)} />
  </StrictMode>,
)
