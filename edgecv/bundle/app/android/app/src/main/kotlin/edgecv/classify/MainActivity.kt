package edgecv.classify

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView
import java.io.IOException
import java.util.concurrent.Executors

/** Choose a photograph; its five best labels and the time of an inference are shown. */
class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor() // the model is used by one thread at a time
    private val opened = lazy { Classifier(assets) }
    private val classifier by opened
    private lateinit var answer: TextView

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        answer = TextView(this)
        val choose = Button(this).apply {
            text = "Choose a photograph"
            setOnClickListener { startActivityForResult(Intent(Intent.ACTION_OPEN_DOCUMENT).setType("image/*"), 0) }
        }
        setContentView(LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            addView(choose)
            addView(answer)
        })
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val photograph = data?.data ?: return
        worker.execute {
            // What is thrown here ends the app: LiteRT's exceptions too, and a large photograph's OutOfMemoryError.
            val text = runCatching { classify(photograph) }.getOrElse { "can't classify it: ${it.message ?: it}" }
            runOnUiThread { answer.text = text }
        }
    }

    override fun onDestroy() {
        worker.execute { if (opened.isInitialized()) classifier.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun classify(photograph: Uri): String {
        val file = contentResolver.openInputStream(photograph)?.use { it.readBytes() } ?: throw IOException("gone")
        val input = decode(file).fit(classifier.preprocess)
        classifier.run(input) // the first run is slower
        val begin = System.nanoTime()
        val outputs = classifier.run(input)
        val ms = (System.nanoTime() - begin) / 1e6
        val lines = best(outputs).map { "%.4f  %s".format(outputs[it], classifier.labels[it]) }
        return (listOf("%.3f ms".format(ms)) + lines).joinToString("\n")
    }
}
