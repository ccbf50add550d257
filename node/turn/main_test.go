package turn

import (
	"os"
	"testing"

	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) {
	if os.Getenv(crowdEnv) != "" { // this process is the clients of another
		os.Exit(crowd(os.Getenv(crowdEnv)))
	}
	leaks.Main(m)
}
